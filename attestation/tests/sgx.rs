//! SGX quotes, by the same rules under their own names.

mod common;

use cocoon_attestation::RefusalKind::{self, Malformed, Rejected, Signature, Unavailable};
use cocoon_attestation::{
    Claims, Endorsements, Evidence, Exceptions, Genuine, IntelTee, PckCa, Refusal, TdxCache, Verifier,
    intel_needs,
};
use cocoon_simulated_tee::{AttestationKey, Documents, Draft, SimulatedRoot, Td};
use common::{NOW, registers};

const REPORT_DATA: [u8; 64] = [0xda; 64];

struct Enclave {
    root: SimulatedRoot,
    key: AttestationKey,
}

impl Enclave {
    fn new() -> Self {
        Self { root: SimulatedRoot::create(NOW), key: AttestationKey::generate() }
    }

    fn draft(&self, version: u8) -> Draft {
        let mut draft = Draft::honest(&Td::new(registers()), &REPORT_DATA, &self.key);
        draft.header[0] = version;
        draft.header[4..8].fill(0); // TEE type
        let mut report = vec![0; 384];
        (report[48], report[56]) = (5, 3); // INIT and MODE64BIT; x87 and SSE
        report[64..96].fill(0xa0);
        report[320..].copy_from_slice(&REPORT_DATA);
        draft.body = match version {
            5 => [&1_u16.to_le_bytes()[..], &384_u32.to_le_bytes(), &report].concat(),
            _ => report,
        };
        draft
    }

    fn quote(&self, version: u8, change: impl FnOnce(&mut Draft)) -> Vec<u8> {
        let mut draft = self.draft(version);
        change(&mut draft);
        self.root.sign_quote(&draft, &self.key)
    }

    fn documents(&self) -> Documents {
        let mut documents = self.root.documents(NOW);
        documents.tcb_info = documents.tcb_info.replace("\"id\":\"TDX\"", "\"id\":\"SGX\"");
        documents.qe_identity = documents.qe_identity.replace("\"TD_QE\"", "\"QE\"");
        documents
    }

    fn verify(&self, quote: &[u8], documents: &Documents) -> Result<Genuine, Refusal> {
        let anchors = cocoon_attestation::TrustAnchors::hardware()
            .with_simulated_root(self.root.root_der())
            .expect("a root");
        let own = Endorsements::from_files([self.root.endorse(documents)]).expect("one small file");
        let (none, cache) = (Exceptions::none(), TdxCache::new());
        let evidence = Evidence::detect(quote)?;
        let verifier = Verifier::new(&anchors, &none, NOW);
        let cold = verifier.verify(&evidence, &own);
        let cached = verifier.with_cache(&cache);
        for _ in 0..2 {
            let hot = cached.verify(&evidence, &own);
            assert_eq!(hot.as_ref().err(), cold.as_ref().err(), "the cache changes nothing");
        }
        cold
    }
}

fn refused(what: &str, result: Result<Genuine, Refusal>, check: &str, kind: RefusalKind) {
    let refusal = result.err().unwrap_or_else(|| panic!("{what}: was accepted"));
    assert_eq!((refusal.check, refusal.kind), (check, kind), "{what}: {refusal}");
}

#[test]
fn all_three_versions_are_read() {
    let enclave = Enclave::new();
    for version in [3, 4, 5] {
        let quote = enclave.quote(version, |_| ());
        let genuine = enclave
            .verify(&quote, &enclave.documents())
            .unwrap_or_else(|refusal| panic!("version {version}: {refusal}"));
        assert_eq!(genuine.platform().name(), "sgx");
        assert_eq!(genuine.claims().expect("a TD").report_data(), Some(&REPORT_DATA));
        assert!(genuine.claims().expect("a TD").registers().is_none());
        let Some(Claims::Sgx(report)) = genuine.claims() else { panic!("an enclave's claims") };
        assert_eq!(report.mr_enclave, [0xa0; 32]);
        let needs = intel_needs(&quote).expect("a quote");
        assert_eq!((needs.tee, needs.ca, &needs.fmspc), (IntelTee::Sgx, PckCa::Platform, b"SIMTDX"));
    }
}

#[test]
fn each_rule_has_a_bad_row() {
    let enclave = Enclave::new();
    type Row<'a> = (&'a str, &'a dyn Fn(&mut Draft), &'a str, RefusalKind);
    let rows: [Row<'_>; 9] = [
        ("debug", &|d| d.body[48] |= 2, "sgx.debug", Rejected),
        ("not initialised", &|d| d.body[48] &= !1, "sgx.attributes", Rejected),
        ("a reserved flag", &|d| d.body[49] |= 8, "sgx.attributes", Rejected),
        ("a reserved byte", &|d| d.body[100] = 1, "sgx.attributes", Rejected),
        ("vendor", &|d| d.header[12] ^= 1, "sgx.header", Rejected),
        ("key type", &|d| d.header[2] = 3, "sgx.header", Rejected),
        ("QE report data", &|d| d.qe_report[383] = 1, "sgx.qe_report_data", Signature),
        ("QE's MRSIGNER", &|d| d.qe_report[128] ^= 1, "sgx.qe_identity", Rejected),
        ("QE in debug", &|d| d.qe_report[48] |= 2, "sgx.qe_identity", Rejected),
    ];
    for version in [3, 4] {
        for (what, change, check, kind) in &rows {
            let quote = enclave.quote(version, change);
            refused(what, enclave.verify(&quote, &enclave.documents()), check, *kind);
        }
    }
}

#[test]
fn collateral_of_tdx_is_not_that_of_sgx() {
    let enclave = Enclave::new();
    let quote = enclave.quote(3, |_| ());
    let good = enclave.documents();
    let tdx = enclave.root.documents(NOW);
    let tcb_info = Documents { tcb_info: tdx.tcb_info.clone(), ..good.clone() };
    refused("TCB info", enclave.verify(&quote, &tcb_info), "sgx.tcb_info", Rejected);
    let qe_identity = Documents { qe_identity: tdx.qe_identity, ..good.clone() };
    refused("QE identity", enclave.verify(&quote, &qe_identity), "sgx.qe_identity", Rejected);
    let no_crl = Documents { pck_crl: vec![], ..good.clone() };
    refused("no CRL", enclave.verify(&quote, &no_crl), "sgx.crl", Unavailable);
    // A component of TDX's is no matter of SGX's.
    let tdx_level =
        good.tcb_info.replace("\"tdxtcbcomponents\":[{\"svn\":5}", "\"tdxtcbcomponents\":[{\"svn\":99}");
    assert_ne!(tdx_level, good.tcb_info);
    enclave.verify(&quote, &Documents { tcb_info: tdx_level, ..good }).expect("SGX components are met");
}

#[test]
fn tcb_info_of_version_2_names_each_component() {
    let enclave = Enclave::new();
    let quote = enclave.quote(3, |_| ());
    let good = enclave.documents();
    let mut info: serde_json::Value = serde_json::from_str(&good.tcb_info).expect("JSON");
    let fields = info.as_object_mut().expect("an object");
    fields.retain(|name, _| !matches!(name.as_str(), "id" | "tdxModule" | "tdxModuleIdentities"));
    fields["version"] = 2.into();
    let tcb = fields["tcbLevels"][0]["tcb"].as_object_mut().expect("an object");
    tcb.remove("tdxtcbcomponents");
    let components = tcb.remove("sgxtcbcomponents").expect("they are there");
    for (at, component) in components.as_array().expect("an array").iter().enumerate() {
        tcb.insert(format!("sgxtcbcomp{:02}svn", at + 1), component["svn"].clone());
    }
    let with = |info: &serde_json::Value| Documents { tcb_info: info.to_string(), ..good.clone() };
    enclave.verify(&quote, &with(&info)).expect("version 2");
    let mut above = info.clone();
    above["tcbLevels"][0]["tcb"]["sgxtcbcomp16svn"] = 1.into();
    refused("a component above", enclave.verify(&quote, &with(&above)), "sgx.tcb", Rejected);
    let mut missing = info.clone();
    missing["tcbLevels"][0]["tcb"].as_object_mut().expect("an object").remove("sgxtcbcomp07svn");
    refused("a component missing", enclave.verify(&quote, &with(&missing)), "sgx.tcb_info", Malformed);
    let mut named = info;
    named["id"] = "TDX".into();
    refused("another's id", enclave.verify(&quote, &with(&named)), "sgx.tcb_info", Rejected);
}

#[test]
fn no_changed_byte_of_a_quote_is_genuine() {
    let enclave = Enclave::new();
    let (quote, documents) = (enclave.quote(3, |_| ()), enclave.documents());
    for at in 0..quote.len() {
        let mut changed = quote.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(enclave.verify(&changed, &documents).is_err(), "byte {at}");
    }
}

#[test]
fn an_enclave_is_no_td() {
    let enclave = Enclave::new();
    let quote = enclave.quote(4, |_| ());
    let mut platform = common::Platform::new().bundle();
    platform.quote = quote;
    let result = Verifier::new(&cocoon_attestation::TrustAnchors::hardware(), &Exceptions::none(), NOW)
        .verify(&Evidence::Bundle(platform), &Endorsements::none());
    refused("in a TD's bundle", result, "tdx.header", Rejected);
}
