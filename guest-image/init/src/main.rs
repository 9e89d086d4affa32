//! PID 1 of the guest. It makes the machine ready, measures what will run, starts the one service, and ends with it.
//!
//! Everything here is in the initrd, and so in the launch measurement. What comes from the host (disks, devices, the
//! configuration) is checked against what is measured, or measured, before it is used. There is no shell and no way in.
//!
//! | the launcher attaches | as |
//! | --- | --- |
//! | root, configuration, weights | read-only virtio disks with the serials `cocoon-root`, `cocoon-config`, `cocoon-weights` |
//! | a reader of lines | the virtio-serial port `cocoon.log`, connected before the guest starts |
//! | the way to the service | a virtio socket device; or, in development, one virtio network card |
//! | the simulated TEE | in development, where there is no real one: the port `cocoon.tee`, and a TPM that OVMF measures into |
//!
//! Lines of PID 1 start with `init: `: a phase and milliseconds since the kernel's start (`start`, `modules`, `root`,
//! `measured`, `weights`, `network`, `service`, `ended`), `memory TOTAL AVAILABLE` in KiB, or `error: ` and a sentence.
//! After `ended` the machine powers off; after `error` it restarts. One that goes without either has a panicked kernel:
//! most likely a block of root or weights is not what its hash tree says.
//!
//! This program has two lives: as PID 1 it runs [`boot`]; started by PID 1 it runs [`confine::run`], which becomes the
//! service. Read it from the top of [`boot`]; each step is a module.

mod command_line;
mod config_disk;
mod confine;
mod device_mapper;
mod devices;
mod emulator;
mod failure;
mod firewall;
mod kernel;
mod log;
mod netlink;
mod network;
mod register;
mod sandbox;
mod seccomp;
mod service;
mod tee;
mod verity;

use command_line::CommandLine;
use config_disk::Model;
use devices::BLOCK;
use failure::{Explain, Failure, Outcome};
use network::Transport;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use sandbox::{ROOT, TEE_PORT, WEIGHTS};
use service::Service;
use std::fs::{File, create_dir_all};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tee::Tee;

/// User and group of the service.
const USER: u32 = 1000;
const SYS: &str = "/sys";
const RUN: &str = "/run/cocoon";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let failure = match arguments.split_first() {
        _ if std::process::id() == 1 => return pid_1(),
        Some((word, nodes)) if word == "confine" => confine::run(nodes),
        _ => {
            Failure::new("this is PID 1 of the Cocoon guest and does nothing elsewhere; boot the guest image")
        }
    };
    eprintln!("init: error: {failure}");
    ExitCode::FAILURE
}

/// Ends the machine when everything else has ended, well or not.
fn pid_1() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let failure = Failure::new(format!("{panic}; this is a bug in cocoon-init: please report it"));
        log::line(format_args!("error: {failure}"));
        let _ = reboot(RebootCommand::Restart);
    }));
    let command = match boot().and_then(Service::wait) {
        Ok(()) => {
            log::phase("ended");
            RebootCommand::PowerOff
        }
        Err(failure) => {
            log::line(format_args!("error: {failure}"));
            RebootCommand::Restart // a launcher sees its VM end, and starts a new guest or none
        }
    };
    let _ = reboot(command);
    ExitCode::FAILURE // the kernel panics when PID 1 ends, and that ends the machine as well
}

/// From the kernel's first process to a running service.
fn boot() -> Outcome<Service> {
    kernel::mount_filesystems()?;
    let command_line = CommandLine::read();
    let log = open_log(command_line.as_ref().is_ok_and(|line| line.development))?;
    let command_line = command_line?;
    log::phase("start");

    kernel::require_lockdown()?;
    kernel::harden()?;
    kernel::load_modules()?;
    kernel::mount_configfs()?;
    log::phase("modules");

    mount_root(&command_line)?;
    log::phase("root");

    let tee = Tee::find(Path::new("/"), command_line.development)?;
    let config = measured_configuration(&tee)?;
    log::phase("measured");

    let weights = open_weights(&Model::parse(&config)?)?;
    log::phase("weights");

    let transport = Transport::find(Path::new(SYS), command_line.development)?;
    transport.bring_up(Path::new(SYS))?;
    let listener = transport.listen()?;
    log::phase("network");

    tee.hand_over()?;
    let service = Service::start(listener, log, &nodes(&tee, &weights)?)?;
    log::phase("service");
    Ok(service)
}

/// The host's port for lines, which the service gets too; in development the console says the same.
fn open_log(development: bool) -> Outcome<Option<File>> {
    let open = |path: &Path| {
        File::options().write(true).open(path).explain(path.display(), "use the image's kernel")
    };
    let port = devices::port(Path::new(SYS), "cocoon.log")?.map(|path| open(&path)).transpose()?;
    let mut outputs = Vec::new();
    if let Some(port) = &port {
        outputs.push(port.try_clone().explain("the port cocoon.log", "give the guest more memory")?);
    }
    if development {
        outputs.push(open(Path::new("/dev/console"))?);
    }
    log::open(outputs);
    Ok(port)
}

/// The service's root: an EROFS whose every block leads to the hash on the command line.
fn mount_root(command_line: &CommandLine) -> Outcome {
    let disk = devices::disk(Path::new(SYS), "cocoon-root")?;
    let device = verity::open("cocoon-root", &disk, command_line.root_blocks, &command_line.root)?;
    create_dir_all(ROOT).explain(ROOT, "build the image anew")?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount(&device, ROOT, "erofs", flags, None).explain("the root cannot be mounted", "build the image anew")
}

/// Reads the configuration and measures it: nobody looks into it before.
fn measured_configuration(tee: &Tee) -> Outcome<Vec<u8>> {
    let disk = devices::disk(Path::new(SYS), "cocoon-config")?;
    let remedy = "the launcher must attach the configuration disk";
    let file = File::open(&disk.path).explain(disk.path.display(), remedy)?;
    let mut bytes = Vec::new();
    file.take(config_disk::MAX_DISK + 1).read_to_end(&mut bytes).explain(disk.path.display(), remedy)?;
    let config = config_disk::configuration(&bytes)?.to_vec();
    create_dir_all(RUN).explain(RUN, "give the guest more memory")?;
    tee.measure(&config)?;
    tee::leave(&format!("{RUN}/config.toml"), &config)?;
    Ok(config)
}

/// The model file's blocks, each checked when it is read against the root hash in the configuration.
fn open_weights(model: &Model) -> Outcome<PathBuf> {
    let disk = devices::disk(Path::new(SYS), "cocoon-weights")?;
    let device = verity::open("cocoon-weights", &disk, model.bytes.div_ceil(BLOCK), &model.verity)?;
    link(WEIGHTS, "model.gguf")?;
    Ok(device)
}

/// Devices that the service gets, and their names there.
fn nodes(tee: &Tee, weights: &Path) -> Outcome<Vec<(String, String)>> {
    let mut nodes = vec![(weights.display().to_string(), WEIGHTS.to_owned())];
    if let Tee::Simulated(port) = tee {
        link(TEE_PORT, "tee.sock")?;
        nodes.push((port.display().to_string(), TEE_PORT.to_owned()));
    }
    Ok(nodes)
}

/// A name in the run folder for a device that the service will see.
fn link(device: &str, name: &str) -> Outcome {
    symlink(device, format!("{RUN}/{name}")).explain(name, "give the guest more memory")
}
