//! Whom to ask: the vendors' public services, or others that speak their protocols.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

/// A vendor's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Intel's Provisioning Certification Service, API v4: TCB info, QE identity, PCK CRLs.
    IntelPcs,
    /// Intel's certificate server: the root CA's CRL.
    IntelCertificates,
    /// AMD's Key Distribution Service (AMD 57230, chapter 4): VCEKs and CRLs.
    AmdKds,
    /// NVIDIA's RIM service.
    NvidiaRim,
    /// NVIDIA's OCSP responder.
    NvidiaOcsp,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::IntelPcs, Self::IntelCertificates, Self::AmdKds, Self::NvidiaRim, Self::NvidiaOcsp];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntelPcs => "Intel's PCS",
            Self::IntelCertificates => "Intel's certificate server",
            Self::AmdKds => "AMD's key service",
            Self::NvidiaRim => "NVIDIA's RIM service",
            Self::NvidiaOcsp => "NVIDIA's OCSP responder",
        }
    }

    fn vendors(self) -> &'static str {
        match self {
            Self::IntelPcs => "https://api.trustedservices.intel.com",
            Self::IntelCertificates => "https://certificates.trustedservices.intel.com",
            Self::AmdKds => "https://kdsintf.amd.com",
            Self::NvidiaRim => "https://rim.attestation.nvidia.com",
            Self::NvidiaOcsp => "https://ocsp.ndis.nvidia.com",
        }
    }
}

/// The address of each service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services([ServiceUrl; 5]);

impl Default for Services {
    /// The vendors' own.
    fn default() -> Self {
        Self(Service::ALL.map(|service| service.vendors().parse().expect("tested: the vendors' addresses")))
    }
}

impl Services {
    /// The same with another address for one of them.
    #[must_use]
    pub fn with(mut self, service: Service, url: ServiceUrl) -> Self {
        self.0[service as usize] = url;
        self
    }

    /// The address of one.
    pub fn url(&self, service: Service) -> &ServiceUrl {
        &self.0[service as usize]
    }
}

/// The base of a service's addresses: https; http on this machine's loopback alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Without a slash at its end.
    base: String,
    loopback: bool,
}

/// An address that cannot be a service's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL with a host.
    #[error("not an address like https://host/path")]
    NotAUrl,
    /// Another scheme, or http to another machine.
    #[error(
        "only https, and http to 127.0.0.1, [::1] or localhost: what is fetched says which machine you ask about"
    )]
    NotHttps,
    /// User names, queries and fragments have no place here.
    #[error("an address without user name, query and fragment")]
    NotABase,
}

impl FromStr for ServiceUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let url = Url::parse(text).map_err(|_| InvalidUrl::NotAUrl)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(InvalidUrl::NotAUrl)?;
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(InvalidUrl::NotHttps),
        }
        let named = !url.username().is_empty() || url.password().is_some();
        if named || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidUrl::NotABase);
        }
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), loopback })
    }
}

impl ServiceUrl {
    /// Is it on this machine? Then no proxy stands between.
    pub(crate) fn loopback(&self) -> bool {
        self.loopback
    }

    /// An address below it; `path` begins with a slash and may have a query.
    pub(crate) fn join(&self, path: &str) -> Result<Url, InvalidUrl> {
        Url::parse(&format!("{}{path}", self.base)).map_err(|_| InvalidUrl::NotAUrl)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_addresses_are_good_and_each_services_own() {
        let services = Services::default();
        for service in Service::ALL {
            assert_eq!(services.url(service).to_string(), service.vendors());
        }
        let other: ServiceUrl = "https://mirror.example/amd/".parse().expect("https");
        let services = services.with(Service::AmdKds, other);
        assert_eq!(services.url(Service::AmdKds).to_string(), "https://mirror.example/amd");
        assert_eq!(services.url(Service::NvidiaRim).to_string(), Service::NvidiaRim.vendors());
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:1/x", "http://localhost", "https://10.0.0.1/pccs"]
        {
            assert!(good.parse::<ServiceUrl>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://10.0.0.1", InvalidUrl::NotHttps),
            ("http://127.0.0.1.example.org", InvalidUrl::NotHttps),
            ("http://localhost.example.org", InvalidUrl::NotHttps),
            ("ftp://127.0.0.1", InvalidUrl::NotHttps),
            ("file:///etc", InvalidUrl::NotAUrl),
            ("kdsintf.amd.com", InvalidUrl::NotAUrl),
            ("https://user@kdsintf.amd.com", InvalidUrl::NotABase),
            ("https://kdsintf.amd.com/?a=b", InvalidUrl::NotABase),
            ("https://kdsintf.amd.com/#a", InvalidUrl::NotABase),
        ] {
            assert_eq!(bad.parse::<ServiceUrl>(), Err(why), "{bad}");
        }
    }
}
