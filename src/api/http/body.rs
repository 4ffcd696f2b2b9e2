//! Reads a request's body as JSON or CSV within a limit, with precise errors.

use std::{fmt, marker::PhantomData};

use axum::{
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, header},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, SeqAccess, Visitor},
};
use serde_json::error::Category;

use super::{
    drain,
    error::{ApiError, Code},
    extract::fields_of,
};
use crate::blocking::blocking;

/// Size from which a document is parsed apart, in bytes: about a millisecond.
const LARGE: usize = 64 << 10;

/// Reads the body as one JSON object of at most `most` bytes.
pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(
    request: Request,
    most: usize,
) -> Result<T, ApiError> {
    drain::whole(request, |request| read(request, most)).await
}

/// Reads the body as text/csv of at most `most` bytes.
pub(crate) async fn csv(request: Request, most: usize) -> Result<String, ApiError> {
    drain::whole(request, |request| async move {
        let bytes =
            bytes(request, most, "text/csv", "-H 'Content-Type: text/csv' --data-binary @FILE")
                .await?;
        String::from_utf8(bytes.into()).map_err(|_| {
            ApiError::new(Code::InvalidField, "the body is not UTF-8 text: save it as UTF-8")
        })
    })
    .await
}

/// Reads the body as the fields of an HTML form of at most `most` bytes, values in the form in
/// which names are stored. The caller checks the characters of the fields in `texts`: they may have
/// several lines, which end in `\n`.
pub(crate) async fn form(
    request: Request,
    most: usize,
    texts: &[&str],
) -> Result<Vec<(String, String)>, ApiError> {
    drain::whole(request, |request| async move {
        let kind = "application/x-www-form-urlencoded";
        let bytes = bytes(request, most, kind, "--data-urlencode NAME=VALUE").await?;
        let is_encoded = |text: &str| !text.contains(|of: char| of == ' ' || of.is_control());
        if !std::str::from_utf8(&bytes).is_ok_and(is_encoded) {
            let problem = "the body is not a form: its text must be percent-encoded";
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
        fields_of(&bytes, texts)
    })
    .await
}

async fn read<T: DeserializeOwned + Send + 'static>(
    request: Request,
    most: usize,
) -> Result<T, ApiError> {
    let bytes = bytes(request, most, "application/json", "--json").await?;
    // serde would also accept a list, with the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::new(
            Code::MalformedRequest,
            "the body must be a JSON object, beginning with `{`",
        ));
    }
    // A large document would keep other requests from their thread.
    let parsed = if bytes.len() > LARGE {
        blocking(move || serde_json::from_slice(&bytes)).await
    } else {
        serde_json::from_slice(&bytes)
    };
    parsed.map_err(|error| {
        let code = match error.classify() {
            Category::Data => Code::InvalidField,
            Category::Io | Category::Syntax | Category::Eof => Code::MalformedRequest,
        };
        ApiError::new(code, format!("the body is not the expected JSON object: {error}"))
    })
}

/// Deserialises a list of at most `MOST` entries. Fails at the first entry too many: the rest takes
/// no memory.
pub(crate) fn at_most<'de, const MOST: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Entries<const MOST: usize, T>(PhantomData<T>);

    impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Entries<MOST, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if list.len() == MOST {
                    let problem = format!(
                        "entry {} is one too many: send at most {MOST} at a time",
                        MOST + 1
                    );
                    return Err(A::Error::custom(problem));
                }
                list.push(entry);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Entries::<MOST, T>(PhantomData))
}

/// Reads a body of this media type; `curl` is the option with which curl sends that type.
pub(crate) async fn bytes(
    request: Request,
    most: usize,
    wanted: &str,
    curl: &str,
) -> Result<Bytes, ApiError> {
    let media_type = head(request.headers(), header::CONTENT_TYPE);
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(wanted) {
        let detail =
            format!("the body is not {wanted}: send it with this Content-Type (curl {curl} does)");
        return Err(ApiError::new(Code::UnsupportedMediaType, detail));
    }
    any(request, most).await
}

fn head(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads the body, whatever its media type says: some clients send none.
pub(crate) async fn any(request: Request, most: usize) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    let too_large = || {
        ApiError::new(
            Code::PayloadTooLarge,
            format!("the body has more than {most} bytes: send it in parts"),
        )
    };
    if head(&parts.headers, header::CONTENT_LENGTH)
        .parse::<usize>()
        .is_ok_and(|length| length > most)
    {
        return Err(too_large());
    }
    axum::body::to_bytes(body, most).await.map_err(|error| {
        // The length limit is the only error here that does not come from the connection.
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if cause.contains("length limit") {
            return too_large();
        }
        ApiError::new(Code::MalformedRequest, format!("the body cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::body::Body;

    use super::*;

    async fn send(media_type: &str, body: &str) -> Result<Vec<u32>, Code> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Numbers {
            numbers: Vec<u32>,
        }
        let request = Request::builder().header(header::CONTENT_TYPE, media_type);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        json::<Numbers>(request, 40).await.map(|body| body.numbers).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn a_json_object_is_read() {
        assert_eq!(
            send("application/json; charset=utf-8", r#" {"numbers": [1, 2]}"#).await,
            Ok(vec![1, 2])
        );
    }

    #[tokio::test]
    async fn anything_else_is_refused_by_its_own_code() {
        for (media_type, body, code) in [
            ("text/plain", r#"{"numbers": []}"#, Code::UnsupportedMediaType),
            ("application/json", "[[1]]", Code::MalformedRequest),
            ("application/json", r#"{"numbers": ["#, Code::MalformedRequest),
            ("application/json", r#"{"numbers": [-1]}"#, Code::InvalidField),
            ("application/json", r#"{"number": [1]}"#, Code::InvalidField),
            ("application/json", &format!("{{{}}}", " ".repeat(40)), Code::PayloadTooLarge),
        ] {
            assert_eq!(send(media_type, body).await, Err(code), "{body}");
        }
    }

    #[test]
    fn a_list_is_refused_at_the_first_entry_too_many() {
        thread_local!(static READ: Cell<usize> = const { Cell::new(0) });

        struct Entry;

        impl<'de> Deserialize<'de> for Entry {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                READ.set(READ.get() + 1);
                u32::deserialize(deserializer).map(|_| Self)
            }
        }

        #[derive(Deserialize)]
        struct List(#[serde(deserialize_with = "at_most::<3, _, _>")] Vec<Entry>);

        let of = |entries: usize| serde_json::from_value::<List>(vec![0; entries].into());
        assert_eq!(of(3).unwrap().0.len(), 3);
        READ.set(0);
        assert!(of(1_000).err().unwrap().to_string().contains("entry 4 is one too many"));
        assert_eq!(READ.get(), 4, "the remaining entries are not read");
    }
}
