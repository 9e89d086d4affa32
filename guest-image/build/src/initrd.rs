//! The initial RAM disk: PID 1, the modules, and the folders that PID 1 mounts on.

use cocoon_image::cpio::Archive;

use crate::modules::Module;
use crate::{Error, elf};

/// Mount points, and the folder of modules.
const FOLDERS: [&str; 6] = ["dev", "modules", "proc", "run", "sys", "sysroot"];

/// The archive's bytes, from the executable of PID 1 and the modules in order.
///
/// # Errors
/// If PID 1 is no static executable: there is no loader for it.
pub(crate) fn build(init: Vec<u8>, modules: Vec<Module>) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::Contents(format!("cocoon-init: {why}"));
    let needs = elf::needs(&init).map_err(wrong)?;
    if needs.loader.is_some() || !needs.libraries.is_empty() {
        return Err(wrong(
            "it is not linked statically (-C target-feature=+crt-static), and the initrd has no loader"
                .into(),
        ));
    }
    let mut archive = Archive::new();
    let fill = || {
        FOLDERS.iter().try_for_each(|folder| archive.folder(folder))?;
        archive.file("init", 0o755, init)?;
        modules.into_iter().enumerate().try_for_each(|(number, Module { name, content })| {
            archive.file(&format!("modules/{number:02}-{name}.ko"), 0o644, content)
        })
    };
    fill().map_err(|error| Error::Contents(format!("initrd: {error}")))?;
    Ok(archive.to_bytes())
}
