//! A PostgreSQL of the test's own: a private folder, a unix socket and no port, ended with the test whatever becomes of it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use cocoon_accounts::{PayeeBook, PayeeOptions};
use cocoon_accounts_postgres::{PostgresAccounts, SharedOptions};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::NoTls;

use crate::{
    common::{NETWORK, WINDOW},
    suite::Fixture,
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Makes a cluster and starts it with further settings.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a folder for the test");
        let mut cluster = Self { folder, server: None, databases: AtomicU32::new(0) };
        if rustix::process::geteuid().is_root() {
            // initdb refuses root.
            let owned = Command::new("chown").arg("nobody").arg(cluster.folder.path()).status();
            assert!(owned.expect("chown runs").success());
        }
        let made = cluster
            .program("initdb")
            .args(["--username=cocoon", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(cluster.data())
            .output()
            .expect("initdb runs: install PostgreSQL (apt-get install postgresql)");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.resume(settings);
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL, as somebody who is not root, that is told to end when this thread does.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        command.arg(binary(name)).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts the server, again if it was stopped, and waits until it takes connections.
    pub(crate) fn resume(&mut self, settings: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a log file");
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        command.args(["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=90"]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        let server = command.stdout(log.try_clone().expect("a file")).stderr(log).spawn();
        self.server = Some(server.expect("postgres starts"));
        let deadline = Instant::now() + PATIENCE;
        while !self.ready() {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ready(&self) -> bool {
        let asked = Command::new(binary("psql"))
            .args(["-X", "-U", "cocoon", "-h"])
            .arg(self.folder.path())
            .args(["-d", "postgres", "-c", "SELECT 1"])
            .output();
        asked.expect("psql runs").status.success()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends the server: in order, or at once as a crash would (it recovers when it is started again).
    pub(crate) fn stop(&mut self, how: Signal) {
        let Some(mut server) = self.server.take() else { return };
        let pid = Pid::from_child(&server);
        kill_process(pid, how).expect("it is ours");
        server.wait().expect("it is our child");
    }

    /// A fresh database.
    pub(crate) async fn database(&self) -> Database<'_> {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}")).await;
        Database { cluster: self, name }
    }

    /// The words of a connection.
    pub(crate) fn words(&self, database: &str) -> String {
        format!("host={} user=cocoon dbname={database}", self.folder.path().display())
    }

    pub(crate) async fn run(&self, database: &str, statement: &str) {
        let (client, connection) =
            tokio_postgres::connect(&self.words(database), NoTls).await.expect("it takes connections");
        tokio::spawn(connection);
        client.batch_execute(statement).await.expect("a good statement");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
        self.stop(Signal::QUIT);
    }
}

/// Debian keeps the server's programs off the PATH.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| Path::new(name).to_path_buf())
}

/// One database of a cluster.
pub(crate) struct Database<'a> {
    cluster: &'a Cluster,
    pub(crate) name: String,
}

pub(crate) fn options() -> PayeeOptions {
    PayeeOptions { network: NETWORK, window: WINDOW }
}

pub(crate) fn shared(lease: Duration) -> SharedOptions {
    SharedOptions { lease, ..SharedOptions::default() }
}

impl Database<'_> {
    pub(crate) fn words(&self) -> String {
        self.cluster.words(&self.name)
    }

    /// The accounts of another gateway.
    pub(crate) async fn book_with(&self, shared: SharedOptions) -> PayeeBook {
        PostgresAccounts::connect(&self.words(), options(), shared).await.expect("the server answers").book()
    }

    pub(crate) async fn run(&self, statement: &str) {
        self.cluster.run(&self.name, statement).await;
    }
}

impl Fixture for Database<'_> {
    const REMEMBERS_LOOKS: bool = true;

    async fn open(&self) -> PayeeBook {
        self.book_with(SharedOptions::default()).await
    }
}

/// Each process asks for everything: what is open is the same for all at every moment.
pub(crate) struct WithoutAllowances<'a>(pub(crate) Database<'a>);

impl Fixture for WithoutAllowances<'_> {
    const REMEMBERS_LOOKS: bool = true;

    async fn open(&self) -> PayeeBook {
        self.0.book_with(SharedOptions { draws: u64::MAX, ..SharedOptions::default() }).await
    }
}
