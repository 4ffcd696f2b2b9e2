//! API keys: their text, scopes and limits.
//!
//! A key is `stellar_ID_SECRET`: the id under which it is stored, and a secret of 256 random bits.
//! Only the BLAKE3 hash of the secret is stored. Slow hashes such as Argon2 make guessing a
//! password expensive. Nobody can guess 256 random bits, so a fast hash protects a key as well,
//! and checking one costs a microsecond of every request instead of a tenth of a second.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The beginning of every key, by which people and secret scanners recognise it.
const PREFIX: &str = "stellar_";

/// Length of a secret in bytes.
const SECRET_BYTES: usize = 32;

/// What a key may do. No scope includes another.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read scores, runs, datasets and analyses.
    Read,
    /// Score images, and create methods, runs and datasets.
    Score,
    /// Read pairs to judge, and write preferences.
    Annotate,
    /// Delete data and read the audit log.
    Admin,
    /// Generate images.
    Generate,
}

impl Scope {
    /// All scopes, in the order of the documentation.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::Score, Self::Annotate, Self::Admin, Self::Generate];

    /// Returns the name of the scope.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Score => "score",
            Self::Annotate => "annotate",
            Self::Admin => "admin",
            Self::Generate => "generate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or_else(|| {
            format!("unknown scope `{name}`: use read, score, annotate, admin or generate")
        })
    }
}

/// The limits of a key, in addition to those of the service; `None` sets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Images per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_minute: Option<u32>,
    /// Concurrent requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// Bytes in the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Generated images per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_per_hour: Option<u32>,
}

/// The hash of a key's secret. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// A hash that no known secret has, to compare with if there is no other.
    pub const NONE: Self = Self(blake3::Hash::from_bytes([0; 32]));

    /// Parses 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        blake3::Hash::from_hex(digits).ok().map(Self)
    }

    /// Returns 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.to_hex().to_string()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A key as its holder has it. It is shown once, when it is created.
pub struct Key {
    id: Uuid,
    secret: [u8; SECRET_BYTES],
}

impl Key {
    /// Generates a key from the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self { id: Uuid::now_v7(), secret })
    }

    /// Parses a key; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, digits) = text.strip_prefix(PREFIX)?.split_once('_')?;
        // Only one spelling of a key is valid, although UUIDs have several.
        let id = id.parse::<Uuid>().ok().filter(|parsed| parsed.simple().to_string() == id)?;
        // A hash happens to be as long as a secret, and its parser to be strict.
        let secret = blake3::Hash::from_hex(digits).ok()?;
        Some(Self { id, secret: secret.into() })
    }

    /// Returns the id, under which the key is stored.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the hash of the secret, which is stored.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(blake3::hash(&self.secret))
    }

    /// Returns the text of the key, which is secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret = blake3::Hash::from(self.secret).to_hex();
        format!("{PREFIX}{}_{secret}", self.id.simple())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_parses_back_and_two_are_never_equal() {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let parsed = Key::parse(&key.reveal()).unwrap();
        assert_eq!((parsed.id(), parsed.hash()), (key.id(), key.hash()));
        assert!(key.id() != other.id() && key.hash() != other.hash());
        assert_eq!(SecretHash::from_hex(&key.hash().to_hex()), Some(key.hash()));
    }

    #[test]
    fn other_texts_are_no_keys() {
        let text = Key::generate().unwrap().reveal();
        let cut = &text[..text.len() - 1];
        let hyphens = text.replacen(&text[8..40], &Uuid::now_v7().to_string(), 1);
        let upper = text.to_uppercase();
        let long = format!("{text}0");
        let prefix = text.replacen("stellar_", "stellar-", 1);
        for wrong in ["", "stellar_", "stellar__", cut, &hyphens, &upper, &long, &prefix] {
            assert!(Key::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn debug_output_hides_the_secret_and_its_hash() {
        let key = Key::generate().unwrap();
        let shown = format!("{key:?} {:?}", key.hash());
        assert!(!shown.contains(&key.reveal()[41..]) && !shown.contains(&key.hash().to_hex()));
    }

    #[test]
    fn scopes_are_named_as_in_documents() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
        assert!("write".parse::<Scope>().unwrap_err().contains("annotate"));
    }
}
