//! TCB statuses, and how those of platform, TDX module and quoting enclave become one.

use super::documents::Verdict;

/// A TCB status by Intel's name (Intel PCS API v4, "TCB status").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TcbStatus {
    UpToDate,
    SWHardeningNeeded,
    ConfigurationNeeded,
    ConfigurationAndSWHardeningNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    Revoked,
    /// The TD started under an older TDX module than the one that runs now. Made here alone.
    TDRelaunchAdvised,
    /// The same, and the platform needs configuration. Made here alone.
    TDRelaunchAdvisedConfigurationNeeded,
}

use TcbStatus::{
    ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
    SWHardeningNeeded, TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded, UpToDate,
};

/// What may stand in a document.
const PUBLISHED: [TcbStatus; 7] = [
    UpToDate,
    SWHardeningNeeded,
    ConfigurationNeeded,
    ConfigurationAndSWHardeningNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    Revoked,
];

/// What a TDX module identity may say.
pub(super) const OF_MODULES: [TcbStatus; 3] = [UpToDate, OutOfDate, Revoked];
/// What a QE identity may say.
pub(super) const OF_ENCLAVES: [TcbStatus; 5] =
    [UpToDate, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked];

impl TcbStatus {
    /// One of the names that Intel publishes.
    pub(super) fn parse(name: &str) -> Option<Self> {
        PUBLISHED.into_iter().find(|status| status.name() == name)
    }

    /// Intel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            UpToDate => "UpToDate",
            SWHardeningNeeded => "SWHardeningNeeded",
            ConfigurationNeeded => "ConfigurationNeeded",
            ConfigurationAndSWHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            OutOfDate => "OutOfDate",
            OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Revoked => "Revoked",
            TDRelaunchAdvised => "TDRelaunchAdvised",
            TDRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }

    /// The platform's status, once its TDX module's or quoting enclave's is known too.
    ///
    /// A component that is out of date or revoked makes the platform so (Intel TDX DCAP Quoting Library API, "TCB status
    /// convergence"). Any other status of a component is not lost: see [`TcbStatus::is_absorbed`].
    pub(super) fn with_component(self, component: Self) -> Self {
        match (component, self) {
            (Revoked, _) => Revoked,
            (OutOfDate, UpToDate | SWHardeningNeeded) => OutOfDate,
            (OutOfDate, ConfigurationNeeded | ConfigurationAndSWHardeningNeeded) => {
                OutOfDateConfigurationNeeded
            }
            _ => self,
        }
    }

    /// Does a platform's status say all that this status of a component says? If not, it counts by itself.
    pub(super) fn is_absorbed(self) -> bool {
        matches!(self, UpToDate | OutOfDate | Revoked)
    }

    /// The launch's status, where the TDX module was updated under the running TD, whose present status is `current`.
    pub(super) fn with_current(self, current: Self) -> Self {
        let outdated = matches!(self, OutOfDate | OutOfDateConfigurationNeeded);
        let mended = matches!(
            current,
            UpToDate | SWHardeningNeeded | ConfigurationNeeded | ConfigurationAndSWHardeningNeeded
        );
        match (outdated && mended, self.needs_configuration() || current.needs_configuration()) {
            (false, _) => self,
            (true, false) => TDRelaunchAdvised,
            (true, true) => TDRelaunchAdvisedConfigurationNeeded,
        }
    }

    fn needs_configuration(self) -> bool {
        matches!(
            self,
            ConfigurationNeeded
                | ConfigurationAndSWHardeningNeeded
                | OutOfDateConfigurationNeeded
                | TDRelaunchAdvisedConfigurationNeeded
        )
    }
}

impl Verdict {
    /// What comes out with a component's verdict: see [`TcbStatus::with_component`].
    pub(super) fn with_component(&self, component: &Self) -> Self {
        let status = self.status.with_component(component.status);
        Self { status, advisories: self.advisories.clone() }.with_advisories(component)
    }

    /// The same, and the other's advisories, each once.
    pub(super) fn with_advisories(mut self, other: &Self) -> Self {
        for advisory in &other.advisories {
            if !self.advisories.contains(advisory) {
                self.advisories.push(advisory.clone());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [TcbStatus; 9] = [
        UpToDate,
        SWHardeningNeeded,
        ConfigurationNeeded,
        ConfigurationAndSWHardeningNeeded,
        OutOfDate,
        OutOfDateConfigurationNeeded,
        Revoked,
        TDRelaunchAdvised,
        TDRelaunchAdvisedConfigurationNeeded,
    ];

    /// Platform, component, what comes out.
    const COMPONENTS: [(TcbStatus, TcbStatus, TcbStatus); 10] = [
        (UpToDate, UpToDate, UpToDate),
        (UpToDate, OutOfDate, OutOfDate),
        (SWHardeningNeeded, OutOfDate, OutOfDate),
        (ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded),
        (ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded),
        (OutOfDate, OutOfDate, OutOfDate),
        (OutOfDateConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded),
        (UpToDate, Revoked, Revoked),
        (Revoked, UpToDate, Revoked),
        (SWHardeningNeeded, UpToDate, SWHardeningNeeded),
    ];

    #[test]
    fn an_outdated_or_revoked_component_makes_the_platform_so() {
        for (platform, component, expected) in COMPONENTS {
            assert_eq!(platform.with_component(component), expected, "{platform:?} with {component:?}");
        }
        for platform in ALL {
            for component in ALL {
                let lost = platform.with_component(component) == platform && component != UpToDate;
                let says_as_much = platform.name().contains("OutOfDate") && component == OutOfDate
                    || platform == Revoked
                    || platform.name().contains("Relaunch");
                assert!(!lost || says_as_much || !component.is_absorbed(), "{platform:?} with {component:?}");
            }
        }
    }

    #[test]
    fn a_relaunch_is_advised_where_only_the_launch_is_outdated() {
        for (launch, current, expected) in [
            (OutOfDate, UpToDate, TDRelaunchAdvised),
            (OutOfDate, SWHardeningNeeded, TDRelaunchAdvised),
            (OutOfDate, ConfigurationNeeded, TDRelaunchAdvisedConfigurationNeeded),
            (OutOfDateConfigurationNeeded, UpToDate, TDRelaunchAdvisedConfigurationNeeded),
            (OutOfDate, OutOfDate, OutOfDate),
            (UpToDate, OutOfDate, UpToDate),
            (ConfigurationNeeded, UpToDate, ConfigurationNeeded),
        ] {
            assert_eq!(launch.with_current(current), expected, "{launch:?}, now {current:?}");
        }
    }

    #[test]
    fn a_document_cannot_say_what_is_made_here() {
        for status in ALL {
            assert_eq!(TcbStatus::parse(status.name()).is_some(), PUBLISHED.contains(&status), "{status:?}");
        }
        assert_eq!(TcbStatus::parse("uptodate"), None);
    }
}
