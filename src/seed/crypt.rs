//! SHA-512 crypt, the `$6$` of crypt(3): what a password becomes before it is written into a volume.
//!
//! The steps have the numbers of the scheme's specification ("Unix crypt using SHA-256 and SHA-512").

use sha2::{Digest, Sha512};

/// Characters of a salt that count.
pub(super) const SALT: usize = 16;
/// Rounds where none are named.
const ROUNDS: usize = 5000;

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A salt made of bytes that say nothing else.
pub(super) fn salt(bytes: &[u8]) -> String {
    bytes.iter().take(SALT).map(|&byte| char::from(ALPHABET[usize::from(byte) % 64])).collect()
}

/// `$6$salt$hash` of a password. The salt has at most [`SALT`] characters, and no `$`.
pub(super) fn sha512(password: &[u8], salt: &str) -> String {
    let digest = digest(password, salt.as_bytes());
    let mut text = format!("$6${salt}$");
    // Step 22: groups of three bytes, whose places go round by 21, and the one left over.
    for group in 0..21 {
        let at = |place: usize| u32::from(digest[(group * 22 + place * 21) % 63]);
        encode(&mut text, at(0) << 16 | at(1) << 8 | at(2), 4);
    }
    encode(&mut text, digest[63].into(), 2);
    text
}

fn encode(text: &mut String, bits: u32, characters: usize) {
    for index in 0..characters {
        text.push(char::from(ALPHABET[(bits >> (6 * index) & 63) as usize]));
    }
}

fn digest(password: &[u8], salt: &[u8]) -> [u8; 64] {
    // Steps 4 to 8: digest B.
    let b: [u8; 64] =
        Sha512::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    // Steps 1 to 12: digest A. The bits of the password's length choose between B and the password.
    let mut a = Sha512::new().chain_update(password).chain_update(salt);
    a.update(repeated(&b, password.len()));
    let mut length = password.len();
    while length > 0 {
        if length & 1 != 0 {
            a.update(b)
        } else {
            a.update(password)
        }
        length >>= 1;
    }
    let mut a: [u8; 64] = a.finalize().into();
    // Steps 13 to 16: sequence P, as long as the password.
    let mut dp = Sha512::new();
    (0..password.len()).for_each(|_| dp.update(password));
    let p = repeated(&dp.finalize(), password.len());
    // Steps 17 to 20: sequence S, as long as the salt.
    let mut ds = Sha512::new();
    (0..16 + usize::from(a[0])).for_each(|_| ds.update(salt));
    let s = repeated(&ds.finalize(), salt.len());
    // Step 21: the rounds.
    for round in 0..ROUNDS {
        let mut c = Sha512::new();
        if round % 2 != 0 {
            c.update(&p)
        } else {
            c.update(a)
        }
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        if round % 2 != 0 {
            c.update(a)
        } else {
            c.update(&p)
        }
        a = c.finalize().into();
    }
    a
}

/// `length` bytes of `digest` over and over.
fn repeated(digest: &[u8], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl passwd -6` and crypt(3) say.
    #[test]
    fn known_answers() {
        assert_eq!(
            sha512(b"Hello world!", "saltstring"),
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
        );
        assert_eq!(
            sha512("x".as_bytes(), "abcdefghijklmnop"),
            "$6$abcdefghijklmnop$4MjOne1jVRKP4IuHRPFedC4vlQHNjvcBfQJVlfB8ciQ5YUzW2g81Pyw4sptw4femJ071/eApI0WDsBAOOCmTl0"
        );
        assert_eq!(
            sha512("secret".as_bytes(), "s"),
            "$6$s$0ONk7Cb6vQHj.WRVKbGZ0Y86yhuLam11L92a6wziCUwhPAmO1YdgYIoxpvS.wNpwTsZveSEo7dJ07No6GUEhX0"
        );
        assert_eq!(sha512("pässwörd mit $ und ' und mehr als vierundsechzig Zeichen, damit der Digest mehrmals vorkommt, ja wirklich".as_bytes(), "0123456789./AZaz"), "$6$0123456789./AZaz$iIDQVnFBXaJ7okoPN2LesqahdWPfGl01/O/V8NH3EunLiTfDNkzZkoUo5IxmH.07gp1rwBbP2mMmB6YK0X5I11");
    }

    #[test]
    fn salts_are_text() {
        let text = salt(&[0, 63, 64, 255, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(text.len(), SALT);
        assert!(text.starts_with(".z.z") && !text.contains('$'));
    }
}
