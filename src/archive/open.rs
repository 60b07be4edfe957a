//! Opens a stored file, whatever it is encrypted with.

use std::path::Path;

use super::codec::Codec;
use super::decryption::Decrypted;
use super::digest::HashingReader;
use super::encryption::Method;
use super::source::{Located, Packed, Source, StoredReader, open_from_disk};
use crate::error::{Error, Kind, Result};

/// Opens what [`super::store_into`] has written on this machine and did not encrypt. The pages that writing left in memory are given
/// up first, so that the bytes come from the disk.
///
/// # Errors
/// [`Kind::Damaged`] if there is no such file, [`Kind::File`] if it cannot be read.
pub fn open_stored(path: &Path, codec: Codec) -> Result<StoredReader> {
    open(Box::new(open_from_disk(path)?), path, codec, None, None)
}

/// Opens a stored file; `path` is for messages.
///
/// What is encrypted by `encryption` is decrypted with `identity`: age's identity file, or for OpenPGP gpg's
/// directory, with the private key.
///
/// # Errors
/// [`Kind::File`] if it cannot be read, [`Kind::NoKey`] if it is encrypted and there is no identity. That the identity is the wrong one, or that the program that decrypts does not
/// take the file, is told when it is read: [`Kind::NoKey`], too, for only the file's digest tells the two apart.
pub fn open(
    file: Packed,
    path: &Path,
    codec: Codec,
    encryption: Option<Method>,
    identity: Option<&Path>,
) -> Result<StoredReader> {
    let source: Box<dyn Source> = match (encryption, identity) {
        (None, _) => Box::new(HashingReader::new(Located::new(file, path))),
        (Some(method), Some(identity)) => Box::new(Decrypted::open(path, file, method, identity)?),
        (Some(_), None) => {
            return Err(Error::new(
                Kind::NoKey,
                format!("{} is encrypted, and no private key was given", path.display()),
            )
            .hint("pass the private key of one of its recipients: --identity FILE"));
        }
    };
    StoredReader::new(source, codec, path)
}
