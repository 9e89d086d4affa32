//! A few connections to one database. One that failed is thrown away; what it was doing is undone by the server, or was
//! done: callers repeat without harm.

use std::{
    net::IpAddr,
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use cocoon_accounts::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, Config, NoTls, Socket, config::Host, tls::NoTlsStream};

use crate::{
    convert::failed,
    schema::{self, Statements},
};

/// How many connections one process has open at most, beside the one that listens and the one that holds the wallet's turn.
pub const MAX_CONNECTIONS: usize = 8;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an operation may take, from its first statement to its commit. Longer than the server's own limits below.
const OPERATION: Duration = Duration::from_secs(10);
/// The server ends what takes longer, so that a client that is cut off holds no lock for long.
const SESSION: &str = "SET synchronous_commit = on; SET statement_timeout = '8s'; SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '8s'; SET default_transaction_isolation = 'read committed'";

/// The connections.
pub(crate) struct Pool {
    config: Config,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// One connection with its statements.
pub(crate) struct Connection {
    client: Client,
    pub(crate) statements: Arc<Statements>,
    _driver: Driver,
}

/// Ends the connection with whoever has it.
pub(crate) struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Pool {
    /// Reads the words of a connection, `host=/run/postgresql user=cocoon dbname=cocoon` or a `postgresql://` URL, checks
    /// that the server keeps what it commits, and makes the tables.
    pub(crate) async fn open(words: &str) -> Result<Self, StoreError> {
        let refused = |why: String| StoreError::Open { path: "PostgreSQL".to_owned(), why };
        let mut config = Config::from_str(words).map_err(|e| refused(e.to_string()))?;
        let name = near(&config).map_err(refused)?;
        config.connect_timeout(CONNECT).application_name("cocoon");
        let pool = Self { config, slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)), idle: Mutex::default() };
        let (mut client, _driver) = pool.connect_plainly().await?;
        let fsync = client.query_one("SHOW fsync", &[]).await.map_err(failed)?;
        if fsync.get::<_, &str>(0) != "on" {
            let why = "it runs with fsync = off: what it says it has written, a power cut takes away; set fsync = on";
            return Err(refused(why.to_owned()));
        }
        schema::prepare(&mut client, &name).await?;
        Ok(pool)
    }

    /// Runs one operation on a connection, within a limit of time.
    pub(crate) async fn run<T>(
        &self,
        operation: impl AsyncFnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let late = |_| StoreError::Unreachable { why: format!("no answer within {OPERATION:?}") };
        tokio::time::timeout(OPERATION, self.run_unlimited(operation)).await.map_err(late)?
    }

    async fn run_unlimited<T>(
        &self,
        operation: impl AsyncFnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut connection, _slot) = self.take().await?;
        let done = operation(&mut connection).await;
        // After an error nobody knows what it is in the middle of.
        if done.is_ok() && !connection.is_closed() {
            self.idle.lock().expect("no holder of this lock panics").push(connection);
        }
        done
    }

    async fn take(&self) -> Result<(Connection, OwnedSemaphorePermit), StoreError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("it is never closed");
        loop {
            let idle = self.idle.lock().expect("no holder of this lock panics").pop();
            match idle {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Ok((connection, slot)),
                None => break,
            }
        }
        let (client, driver) = self.connect_plainly().await?;
        let statements = Arc::new(Statements::prepare(&client).await.map_err(failed)?);
        Ok((Connection { client, statements, _driver: driver }, slot))
    }

    /// A connection of one's own, without statements.
    pub(crate) async fn connect_plainly(&self) -> Result<(Client, Driver), StoreError> {
        let (client, connection) = self.connect().await?;
        let driver = Driver(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the account database ended");
            }
        }));
        client.batch_execute(SESSION).await.map_err(failed)?;
        Ok((client, driver))
    }

    /// A connection that is driven by the caller.
    pub(crate) async fn connect(
        &self,
    ) -> Result<(Client, tokio_postgres::Connection<Socket, NoTlsStream>), StoreError> {
        let late = |_| StoreError::Unreachable { why: format!("no connection within {CONNECT:?}") };
        tokio::time::timeout(CONNECT, self.config.connect(NoTls)).await.map_err(late)?.map_err(failed)
    }
}

/// Where it is, or why that is too far for a connection without TLS.
fn near(config: &Config) -> Result<String, String> {
    let far = |host: &str| {
        format!(
            "the server {host} is on another machine, and connections are not encrypted; reach it by a tunnel on 127.0.0.1, or a unix socket"
        )
    };
    let local = |address: &IpAddr| address.is_loopback();
    if let Some(address) = config.get_hostaddrs().iter().find(|address| !local(address)) {
        return Err(far(&address.to_string()));
    }
    let mut names = Vec::new();
    for host in config.get_hosts() {
        match host {
            Host::Unix(path) => names.push(path.display().to_string()),
            Host::Tcp(name) if name == "localhost" || name.parse().is_ok_and(|ip| local(&ip)) => {
                names.push(name.clone());
            }
            Host::Tcp(name) => return Err(far(name)),
        }
    }
    if names.is_empty() {
        return Err("no host is named; for a unix socket: host=/run/postgresql".to_owned());
    }
    Ok(format!("PostgreSQL at {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(words: &str) -> Result<String, String> {
        near(&Config::from_str(words).expect("words of a connection"))
    }

    #[test]
    fn only_what_is_reached_without_a_network_is_taken() {
        for good in ["host=/run/postgresql", "host=localhost", "host=127.0.0.1 port=1", "host=::1"] {
            assert!(look(good).is_ok(), "{good}");
        }
        for bad in ["host=db.example", "host=10.0.0.1", "host=localhost hostaddr=10.0.0.1", "user=me"] {
            assert!(look(bad).is_err(), "{bad}");
        }
        assert!(look("host=localhost,db.example").is_err(), "every one of them");
    }
}
