//! Fetching from an archive that is slow, broken, changed or gone; the archive is a server of this test.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cocoon_image::Sha256;
use cocoon_image_build::{Error, Group, Lock, Pinned, Quiet, Store, Tree};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers of the archive by path: each a whole HTTP response. Of several for a path each is given once, the last always.
struct Archive {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Archive {
    async fn serve(responses: Vec<(&'static str, Vec<Vec<u8>>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/debian", listener.local_addr().expect("bound"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let mut responses: BTreeMap<String, Vec<Vec<u8>>> =
            responses.into_iter().map(|(path, of)| (format!("/debian/{path}"), of)).collect();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("").to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = match responses.get_mut(&path) {
                    Some(of) if of.len() > 1 => of.remove(0),
                    Some(of) => of[0].clone(),
                    None => {
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                    }
                };
                let _ = connection.write_all(&answer).await;
            }
        });
        Self { address, asked }
    }

    fn store(&self, cache: &Path, offline: bool) -> Store {
        Store::new(cache.to_owned(), &self.address, offline, Arc::new(Quiet)).expect("a client")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn ok(body: &[u8], announced: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const BODY: &[u8] = b"the bytes of a package";
const PATH: &str = "pool/p.deb";

fn pinned() -> Pinned {
    Pinned {
        name: "p".into(),
        version: "1.0-1".into(),
        suite: "trixie".into(),
        path: PATH.into(),
        size: BODY.len() as u64,
        sha256: Sha256::of(BODY),
    }
}

/// The files of the cache's folder of packages.
fn cached(cache: &Path) -> Vec<Vec<u8>> {
    common::files(&cache.join("debs")).into_values().collect()
}

/// Fetches the package, with the archive giving these answers.
fn fetch(answers: Vec<Vec<u8>>) -> (Result<(), Error>, Vec<Vec<u8>>, usize) {
    let cache = tempfile::tempdir().expect("a folder");
    let (result, asked) = common::runtime().block_on(async {
        let archive = Archive::serve(vec![(PATH, answers)]).await;
        let result = archive.store(cache.path(), false).packages(&[pinned()]).await;
        (result.map(drop), archive.asked())
    });
    (result, cached(cache.path()), asked)
}

#[test]
fn a_package_is_fetched_once_and_then_needs_no_network() {
    let cache = tempfile::tempdir().expect("a folder");
    common::runtime().block_on(async {
        let archive = Archive::serve(vec![(PATH, vec![ok(BODY, BODY.len())])]).await;
        let paths = archive.store(cache.path(), false).packages(&[pinned()]).await.expect("fetched");
        assert_eq!(std::fs::read(&paths[0]).expect("there"), BODY);
        archive.store(cache.path(), true).packages(&[pinned()]).await.expect("cached");
        assert_eq!(archive.asked(), 1);

        // A disk that forgot a byte.
        std::fs::write(&paths[0], [b'x'; BODY.len()]).expect("room");
        let offline = archive.store(cache.path(), true).packages(&[pinned()]).await;
        assert!(matches!(offline, Err(Error::Offline { name, .. }) if name == "p"));
        archive.store(cache.path(), false).packages(&[pinned()]).await.expect("fetched anew");
        assert_eq!(std::fs::read(&paths[0]).expect("there"), BODY);
    });
}

#[test]
fn what_breaks_off_is_tried_again() {
    let refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let (result, files, asked) = fetch(vec![ok(&BODY[..5], BODY.len()), refused, ok(BODY, BODY.len())]);
    result.expect("the third time");
    assert_eq!((files, asked), (vec![BODY.to_vec()], 3));
}

#[test]
fn a_package_that_left_the_archive_is_named_with_the_remedy() {
    let gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let (result, files, asked) = fetch(vec![gone]);
    let error = result.expect_err("gone");
    assert!(matches!(error, Error::Gone { .. }));
    assert!(error.to_string().contains("p 1.0-1 of trixie has left the archive"), "{error}");
    assert!(error.remedy().contains("cocoon image lock --update"));
    assert_eq!((files.len(), asked), (0, 1), "asking again would not help");
}

#[test]
fn other_bytes_or_more_of_them_are_refused_and_not_kept() {
    let other = [b'x'; BODY.len()];
    let (result, files, _) = fetch(vec![ok(&other, other.len())]);
    let error = result.expect_err("other bytes");
    assert!(matches!(&error, Error::OtherBytes { found, .. } if *found == Sha256::of(&other)), "{error}");
    assert!(files.is_empty());

    let longer = [BODY, b"!"].concat();
    let (result, files, _) = fetch(vec![ok(&longer, longer.len())]);
    assert!(result.expect_err("more bytes").to_string().contains("more than the 22 bytes"));
    assert!(files.is_empty());

    let (result, files, asked) = fetch(vec![ok(&BODY[1..], BODY.len() - 1)]);
    assert!(
        result.expect_err("fewer bytes").to_string().contains("ends after 21 of 22 bytes (tried 4 times)")
    );
    assert_eq!((files.len(), asked), (0, 4));
}

#[test]
fn a_package_that_is_none_makes_no_tree() {
    let cache = tempfile::tempdir().expect("a folder");
    common::runtime().block_on(async {
        let archive = Archive::serve(vec![(PATH, vec![ok(BODY, BODY.len())])]).await;
        let lock = Lock::new(BTreeMap::from([(Group::Firmware, vec![pinned()])]));
        let error = Tree::of(Group::Firmware, &lock, &archive.store(cache.path(), false))
            .await
            .expect_err("no package");
        assert!(error.to_string().contains("p 1.0-1 cannot be unpacked: it is no `ar` archive"), "{error}");
        assert!(
            Tree::of(Group::Guest, &lock, &archive.store(cache.path(), false)).await.is_err(),
            "not in the lock"
        );
    });
    assert_eq!(std::fs::read_dir(cache.path().join("trees")).expect("begun").count(), 0);
}

#[test]
fn the_packages_that_are_gone_are_found_without_fetching_any() {
    let cache = tempfile::tempdir().expect("a folder");
    common::runtime().block_on(async {
        let archive = Archive::serve(vec![(PATH, vec![ok(b"", BODY.len())])]).await;
        let gone = Pinned { name: "q".into(), path: "pool/q.deb".into(), ..pinned() };
        let lock = Lock::new(BTreeMap::from([(Group::Firmware, vec![pinned(), gone.clone()])]));
        let found =
            cocoon_image_build::check(&archive.store(cache.path(), false), &lock).await.expect("reached");
        assert_eq!(found, [(Group::Firmware, &gone)]);
        assert_eq!(archive.asked(), 2);
    });
}

#[test]
fn weights_are_prepared_once_and_again_when_the_file_changes() {
    let home = tempfile::tempdir().expect("a folder");
    let store =
        Store::new(home.path().join("cache"), "http://127.0.0.1:9", true, Arc::new(Quiet)).expect("a client");
    let model = home.path().join("model.gguf");
    std::fs::write(&model, b"one").expect("room");
    let first = store.weights_disk(&model).expect("prepared");
    let made = || std::fs::metadata(&first.path).and_then(|found| found.modified()).expect("there");
    let (before, again) = (made(), store.weights_disk(&model).expect("remembered"));
    assert_eq!((again, made()), (first.clone(), before));

    std::fs::write(&model, b"three").expect("room");
    let second = store.weights_disk(&model).expect("prepared");
    assert_ne!(second.verity, first.verity);
    assert_eq!((second.bytes, second.weights), (5, Sha256::of(b"three")));

    std::fs::remove_file(&second.path).expect("it was there");
    assert_eq!(store.weights_disk(&model).expect("prepared anew"), second);
    std::fs::write(&model, b"").expect("room");
    assert!(store.weights_disk(&model).expect_err("nothing").to_string().contains("is empty"));
    assert!(
        store.weights_disk(&home.path().join("absent")).expect_err("nothing").to_string().contains("absent")
    );
}
