//! SCRAM-SHA-256 (RFC 5803, RFC 7677): what a server stores of a password. It is made here, so that the server, its log and
//! whoever may read its statements never see the password.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

type Hash = [u8; 32];

/// PostgreSQL's own (`SCRAM_SHA_256_DEFAULT_ITERATIONS`).
const ITERATIONS: u32 = 4096;

/// What `pg_authid.rolpassword` holds for an ASCII password.
pub fn verifier(password: &str, salt: &[u8]) -> String {
    let salted = stretched(password.as_bytes(), salt);
    let stored: Hash = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
    let server = hmac(&salted, &[b"Server Key"]);
    format!("SCRAM-SHA-256${ITERATIONS}:{}${}:{}", base64(salt), base64(&stored), base64(&server))
}

/// PBKDF2 with one block.
fn stretched(password: &[u8], salt: &[u8]) -> Hash {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut all = last;
    for _ in 1..ITERATIONS {
        last = hmac(password, &[&last]);
        all.iter_mut().zip(last).for_each(|(all, byte)| *all ^= byte);
    }
    all
}

/// RFC 2104; the key is no longer than a block.
fn hmac(key: &[u8], message: &[&[u8]]) -> Hash {
    let block = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut inner = Sha256::new().chain_update(block(0x36));
    for part in message {
        inner.update(part);
    }
    Sha256::new().chain_update(block(0x5c)).chain_update(inner.finalize()).finalize().into()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let number = number << (8 * (3 - three.len()));
        for digit in 0..4 {
            // Writing to a String cannot fail.
            let _ = match digit <= three.len() {
                true => write!(text, "{}", char::from(DIGITS[(number >> (18 - 6 * digit)) as usize & 63])),
                false => write!(text, "="),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_that_of_the_example_in_the_standard() {
        // RFC 7677 has the salt, the password and both signatures.
        let salt =
            [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
        assert_eq!(
            verifier("pencil", &salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn bytes_are_written_as_every_base64_is() {
        let written = ["", "f", "fo", "foo", "foob"].map(|bytes| base64(bytes.as_bytes()));
        assert_eq!(written, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
