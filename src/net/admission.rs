//! What admits to a cluster: the cluster key, what is derived from it, the node's identity; tickets
//! that carry the key to a newcomer, and the list of members, in modules of their own.
//!
//! It must never know a connection or a pattern: it makes, stores and derives keys.

mod members;
mod ticket;

use crate::port::SpaceTag;
use libp2p::identity::Keypair;
use libp2p::pnet::PreSharedKey;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use members::{Admission, CONTACTS_MAX, MEMBERS_MAX, Members, MembersError, Standing};
pub use ticket::{ADDRESSES_MAX, TICKET_CHARS_MAX, Ticket, TicketError};

/// Bytes of a cluster key.
const KEY_BYTES: usize = 32;
/// A key file is 64 hex digits and a newline; a longer one is not ours.
const KEY_FILE_BYTES: usize = 2 * KEY_BYTES + 1;
/// An identity file holds one protobuf key, under 100 bytes for ed25519; RSA would be larger.
const IDENTITY_FILE_BYTES_MAX: u64 = 4_096;

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or written. A file we began to create was removed again. The
    /// disk's or the operator's.
    #[error("use the key file {}: {source}; check the path and its permissions", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold such a key; it is left as it is. The operator's.
    #[error("read {} as a key: {reason}; restore it or point to another", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without its content.
        reason: &'static str,
    },
    /// The text is not 64 hex digits; nothing changed. The operator's.
    #[error("read a cluster key: expected 64 hex digits")]
    NotHex,
    /// The system has no randomness; nothing changed.
    #[error("draw a new key: {0}")]
    Random(getrandom::Error),
}

/// The secret all members of a cluster share: who holds it is in.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(redacted)")
    }
}

impl ClusterKey {
    /// A key from its bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A fresh key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
        Ok(Self(bytes))
    }

    /// The secret bytes, for a ticket.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The key written as 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_BYTES {
            return Err(KeyError::NotHex);
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(KeyError::NotHex);
            let value = nibble(pair[0])? * 16 + nibble(pair[1])?;
            *byte = u8::try_from(value).expect("two hex digits are below 256");
        }
        Ok(Self(bytes))
    }

    /// The secret as 64 hex digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Reads the key from `path`, or makes one there that only the owner can read.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let malformed = |reason| KeyError::Malformed { path: path.to_path_buf(), reason };
        if let Some(bytes) = read(path, KEY_FILE_BYTES as u64)? {
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not text"))?;
            return Self::from_hex(text.trim_end()).map_err(|_| malformed("not 64 hex digits"));
        }
        let key = Self::generate()?;
        key.store(path)?;
        Ok(key)
    }

    /// Writes this key to a new file at `path`; an existing file is never overwritten.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        create(path, format!("{}\n", self.to_hex()).as_bytes())
    }

    /// Writes this key over the one at `path`, durably and all at once: a crash leaves either.
    pub fn replace(&self, path: &Path) -> Result<(), KeyError> {
        replace(path, format!("{}\n", self.to_hex()).as_bytes())
    }

    /// The key of the private network: without it no protocol byte is understood.
    pub fn psk(&self) -> PreSharedKey {
        PreSharedKey::new(blake3::derive_key("consilience psk v1", &self.0))
    }

    /// What a space is called on the wire: only holders of the key can link it to the name.
    pub fn space_tag(&self, name: &str) -> SpaceTag {
        let key = blake3::derive_key("consilience space tag v1", &self.0);
        let hash = blake3::keyed_hash(&key, name.as_bytes());
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash.as_bytes()[..16]);
        SpaceTag(tag)
    }
}

/// Reads the node's identity from `path`, or makes an ed25519 one there that only the owner can
/// read.
pub fn load_or_create_identity(path: &Path) -> Result<Keypair, KeyError> {
    let malformed = |reason| KeyError::Malformed { path: path.to_path_buf(), reason };
    if let Some(bytes) = read(path, IDENTITY_FILE_BYTES_MAX)? {
        return Keypair::from_protobuf_encoding(&bytes)
            .map_err(|_| malformed("not a libp2p private key"));
    }
    let identity = Keypair::generate_ed25519();
    let bytes =
        identity.to_protobuf_encoding().expect("an ed25519 key generated here has an encoding");
    create(path, &bytes)?;
    Ok(identity)
}

/// The file's bytes, `None` if there is no file. One byte over the limit is malformed.
fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_path_buf(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(KeyError::Malformed { path: path.to_path_buf(), reason: "too long" });
    }
    Ok(Some(bytes))
}

/// Puts a new file in the place of an old one; only its owner can read it.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.to_path_buf(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // One left by a crash: nobody else writes here.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    create(&fresh, bytes)?;
    fs::rename(&fresh, path).map_err(failed)?;
    sync_parent(path).map_err(failed)
}

/// Creates the file durably; removes it again if that fails half way, for a short key file would
/// stop every later start.
fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.to_path_buf(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // The first error is the one worth reporting.
        let _ = fs::remove_file(path);
        return Err(failed(error));
    }
    // The name, too, must survive a crash: a new key on the next start would be another cluster.
    sync_parent(path).map_err(failed)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_key_file_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let made = ClusterKey::load_or_create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), KEY_FILE_BYTES);
        assert_eq!(ClusterKey::load_or_create(&path).unwrap(), made);
        assert!(made.store(&path).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_replaced_key_file_stays_with_its_owner_whatever_a_crash_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        ClusterKey::new([1; 32]).store(&path).unwrap();
        fs::write(dir.path().join("cluster.key.new"), "half").unwrap();
        ClusterKey::new([2; 32]).replace(&path).unwrap();
        assert_eq!(ClusterKey::load_or_create(&path).unwrap(), ClusterKey::new([2; 32]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        for content in ["", "zz", &"g".repeat(64), &"0".repeat(66)] {
            fs::write(&path, content).unwrap();
            let refused = ClusterKey::load_or_create(&path);
            assert!(matches!(refused, Err(KeyError::Malformed { .. })), "{content:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn an_identity_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let made = load_or_create_identity(&path).unwrap();
        let loaded = load_or_create_identity(&path).unwrap();
        assert_eq!(made.public(), loaded.public());
    }

    #[test]
    fn a_space_has_another_tag_in_another_cluster() {
        let (one, two) = (ClusterKey::new([1; 32]), ClusterKey::new([2; 32]));
        assert_eq!(one.space_tag("a"), one.space_tag("a"));
        assert_ne!(one.space_tag("a"), one.space_tag("b"));
        assert_ne!(one.space_tag("a"), two.space_tag("a"));
        assert_ne!(one.psk(), two.psk());
    }

    #[test]
    fn a_cluster_key_is_not_printed_by_debug() {
        let key = ClusterKey::new([0xab; 32]);
        assert!(!format!("{key:?}").contains("ab, ab"));
        assert!(!format!("{key:?}").contains("abab"));
        assert_eq!(ClusterKey::from_hex(&key.to_hex()).unwrap(), key);
    }
}
