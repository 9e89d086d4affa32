//! The lock, the sources and the PTX belong together; a compiler is not needed to see it.

use std::{fs, path::Path};

use cocoon_kernels::{Kernel, MODULES, TARGETS, params, ptx};
use cocoon_ptx_check::Module;

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels.lock");
    fs::read_to_string(path).expect("the lock").parse().expect("TOML")
}

#[test]
fn the_lock_names_every_source_as_it_is() {
    let lock = lock();
    let named = lock["sources"].as_table().expect("a table");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("sources") {
        let path = entry.expect("a source").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let digest = named.get(&name).and_then(|digest| digest.as_str());
        let advice = "run `cargo run --release -p xtask -- kernels`";
        assert_eq!(
            digest,
            Some(sha256(&fs::read(&path).expect("a source")).as_str()),
            "{name} changed: {advice}"
        );
        count += 1;
    }
    assert_eq!(count, named.len(), "the lock names sources that are not there");
}

#[test]
fn the_lock_names_every_ptx_as_it_is_and_hardly_anything_spills() {
    let lock = lock();
    let named = lock["ptx"].as_table().expect("a table");
    for module in MODULES {
        for (target, name) in TARGETS.into_iter().zip(["sm_80", "sm_90", "sm_100"]) {
            let entry = named[&format!("{module}.{name}.ptx")].as_table().expect("a table");
            let text = ptx(module, target).expect("listed");
            assert_eq!(
                entry["sha256"].as_str(),
                Some(sha256(text.as_bytes()).as_str()),
                "{module}.{name}.ptx"
            );
            for (entry, resources) in entry.iter().filter(|(key, _)| *key != "sha256") {
                let resources = resources.as_str().expect("text");
                let spilled = resources.split(", ").find_map(|part| part.strip_suffix(" bytes spill stores"));
                let spilled: u32 = spilled.and_then(|bytes| bytes.parse().ok()).expect("a number");
                // Sampling may keep a value or two in memory; what runs in each layer keeps none.
                let most = if module == &"draw" { 16 } else { 0 };
                assert!(spilled <= most, "{entry} for {name}: {resources}");
            }
        }
    }
    assert_eq!(named.len(), MODULES.len() * TARGETS.len());
}

#[test]
fn no_float_leaves_its_rounding_to_the_next_compiler() {
    for module in MODULES {
        for target in TARGETS {
            for line in ptx(module, target).expect("listed").lines() {
                let word = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
                let float = word.ends_with(".f32") || word.ends_with(".f64");
                let arithmetic = ["add.", "sub.", "mul.", "mad.", "fma.", "div.", "sqrt.", "rcp.", "ex2."];
                if float && arithmetic.iter().any(|begin| word.starts_with(begin)) {
                    assert!(
                        word.contains(".rn.") && !word.contains("ftz"),
                        "{module} for {target:?}: {line}"
                    );
                }
            }
        }
    }
}

#[test]
fn parameters_are_read_as_the_interpreter_reads_them() {
    for kernel in Kernel::ALL {
        for target in TARGETS {
            let module = Module::parse(ptx(kernel.module(), target).expect("listed")).expect("PTX");
            let entry = module.entry(kernel.entry()).expect("there");
            let sizes: Vec<usize> = entry.params().map(|size| size as usize).collect();
            assert_eq!(params(kernel.module(), kernel.entry(), target), Some(sizes), "{kernel:?}");
        }
    }
}
