//! Files that a recipe names by their address: fetched once, and kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapidary_train::{Interrupt, Progress};
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::StatusCode;

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot fetch {url}: {reason}")]
    Fetch { url: String, reason: String },

    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("stopped while fetching {url}; what has come is kept, and the same command goes on there")]
    Stopped { url: String },
}

/// Whether a recipe means an address.
pub fn is_remote(given: &str) -> bool {
    given.starts_with("https://") || given.starts_with("http://")
}

/// The file of an address, which is fetched into `folder` if it is not there. One that was fetched in part before is gone
/// on with where the server can do that.
///
/// # Errors
/// An address that does not answer with a file, a folder that cannot be written, a signal.
pub fn fetch(url: &str, folder: &Path, interrupt: &Interrupt) -> Result<PathBuf, RemoteError> {
    let path = folder.join(name(url));
    if path.exists() {
        return Ok(path);
    }
    let part = part_of(&path);
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoteError::Write { path, source }
    };
    let failed = |reason: String| RemoteError::Fetch { url: url.to_owned(), reason };
    fs::create_dir_all(folder).map_err(unwritable(folder))?;

    let config = Agent::config_builder().timeout_connect(Some(Duration::from_secs(30))).http_status_as_error(false);
    let mut before = fs::metadata(&part).map_or(0, |metadata| metadata.len());
    let mut request = Agent::from(config.build()).get(url);
    if before > 0 {
        request = request.header("Range", format!("bytes={before}-"));
    }
    let response = request.call().map_err(|error| failed(error.to_string()))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if before > 0 => {}
        // Nothing is left of the range: the part is the whole, or not of this file.
        StatusCode::RANGE_NOT_SATISFIABLE if before > 0 => {
            fs::remove_file(&part).map_err(unwritable(&part))?;
            return fetch(url, folder, interrupt);
        }
        StatusCode::OK => before = 0,
        status => return Err(failed(format!("the server answers {status}"))),
    }
    let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
    // A body that is compressed on the way has another length than its file.
    let length = header("content-length").filter(|_| !response.headers().contains_key("content-encoding"));
    let total = length.map(|length| before + length);

    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(unwritable(&part))?;
    file.set_len(before).map_err(unwritable(&part))?;
    let mut body = response.into_body().into_reader();
    let mut progress = Progress::new(&format!("fetching {url}"), total.unwrap_or(before), before);
    let mut block = vec![0; 1 << 16];
    let mut done = before;
    loop {
        if interrupt.raised() {
            return Err(RemoteError::Stopped { url: url.to_owned() });
        }
        let read = body.read(&mut block).map_err(|error| failed(format!("{error}, after {done} bytes")))?;
        if read == 0 {
            break;
        }
        file.write_all(&block[..read]).map_err(unwritable(&part))?;
        done += read as u64;
        progress.set(done, "bytes");
    }
    if let Some(total) = total.filter(|total| *total != done) {
        return Err(failed(format!("{done} bytes came of {total}; the same command goes on there")));
    }
    file.sync_all().map_err(unwritable(&part))?;
    fs::rename(&part, &path).map_err(unwritable(&path))?;
    progress.finish(&format!("{done} bytes"));
    Ok(path)
}

/// Its own for each address; the end is the address's, which says what format the file has.
fn name(url: &str) -> String {
    let digest = Sha256::digest(url);
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let last: String = last.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    // File systems have names of 255 bytes.
    format!("{digest}-{}", &last[last.len().saturating_sub(200)..])
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers requests one after another, each by what `answer` makes of its range, and gives the address.
    fn server(requests: usize, answer: impl Fn(Option<usize>) -> Vec<u8> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(requests) {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
                let range = lines.filter_map(|line| {
                    line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok()
                });
                let range = range.last();
                stream.write_all(&answer(range)).unwrap();
            }
        });
        format!("http://{address}/shard-0.jsonl.zst?download=1")
    }

    fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn a_file_is_fetched_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = server(1, |_| response("200 OK", 5, b"amber"));
        let path = fetch(&url, folder.path(), &Interrupt::default()).unwrap();
        assert!(path.to_str().unwrap().ends_with("-shard-0.jsonl.zst"), "{}", path.display());
        assert_eq!(fs::read(&path).unwrap(), b"amber");
        assert_eq!(fetch(&url, folder.path(), &Interrupt::default()).unwrap(), path, "the server is gone");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_part_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let url = server(2, |range| match range {
            // The connection ends too early.
            None => response("200 OK", 5, b"amb"),
            Some(at) => response("206 Partial Content", 5 - at, &b"amber"[at..]),
        });
        let error = fetch(&url, folder.path(), &Interrupt::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot fetch {url}: ")) && error.contains('3'), "{error}");
        let path = fetch(&url, folder.path(), &Interrupt::default()).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"amber");
    }

    #[test]
    fn a_server_without_ranges_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = server(1, |_| response("200 OK", 5, b"beryl"));
        fs::write(part_of(&folder.path().join(name(&url))), "am").unwrap();
        assert_eq!(fs::read(fetch(&url, folder.path(), &Interrupt::default()).unwrap()).unwrap(), b"beryl");
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let url = server(1, |_| response("404 Not Found", 0, b""));
        let error = fetch(&url, folder.path(), &Interrupt::default()).unwrap_err().to_string();
        assert_eq!(error, format!("cannot fetch {url}: the server answers 404 Not Found"));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left");
        let interrupt = Interrupt::default();
        interrupt.raise();
        let url = server(1, |_| response("200 OK", 5, b"amber"));
        assert!(matches!(fetch(&url, folder.path(), &interrupt), Err(RemoteError::Stopped { .. })));
        assert!(fetch("http://127.0.0.1:1/x", folder.path(), &Interrupt::default()).is_err());
    }

    #[test]
    fn names_end_as_addresses_do() {
        let end = |url: &str| name(url).split_once('-').unwrap().1.to_owned();
        assert_eq!(end("https://a.org/b/c d.tar.zst"), "c_d.tar.zst");
        assert_eq!(end("https://a.org/c.jsonl?x=/y#z"), "c.jsonl");
        assert_ne!(name("https://a.org/c.jsonl?x=1"), name("https://a.org/c.jsonl?x=2"));
        assert!(is_remote("https://a.org") && !is_remote("texts/http.txt"));
    }
}
