//! The server's address, and how values are written into a query.
//!
//! The one rule: credentials that stand in the address go into [`Auth`], and are never seen in an address again.

use reqwest::Url;

use super::{Auth, RestError};

/// The base under which the calls live; its path ends in `/`.
#[derive(Clone, Debug)]
pub(super) struct Address {
    base: Url,
}

impl Address {
    /// Reads `https://host/rest` or `https://host/rest/`, and takes credentials out of it.
    pub(super) fn parse(text: &str, auth: Auth) -> Result<(Self, Auth), RestError> {
        let bad = |why: String| RestError::Url { why };
        let mut base =
            Url::parse(text.trim()).map_err(|error| bad(format!("{error}; it should look like https://host/rest/")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad(format!("'{}' is no scheme for a REST server: use http or https", base.scheme())));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(bad("it must end with its path, without '?' or '#'".into()));
        }
        let auth = match (base.username(), base.password(), auth) {
            ("", None, auth) => auth,
            (user, password, Auth::None) => {
                Auth::Basic { user: unquote(user)?, password: unquote(password.unwrap_or_default())? }
            }
            (_, _, Auth::Bearer(_) | Auth::Basic { .. }) => {
                return Err(bad("it carries a user beside other credentials: keep one of the two".into()));
            }
        };
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        stripped.map_err(|()| bad("it has no host".into()))?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok((Self { base }, auth))
    }

    pub(super) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    pub(super) fn ends_in_rest(&self) -> bool {
        self.base.path().ends_with("/rest/")
    }

    /// The address of a call below the base.
    pub(super) fn join(&self, target: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path()));
        url.set_query(query);
        url
    }
}

/// A user or password as it is meant.
pub(super) fn unquote(text: &str) -> Result<String, RestError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if let (Some(high), Some(low)) = (hex(high), hex(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| RestError::Url { why: "its user or password is not UTF-8".into() })
}

/// A value in a query, as Python's `quote_plus` writes it, which is what the server expects.
pub(super) fn quote_plus(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
                }
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_with_and_without_its_last_slash() {
        for text in ["https://h/rest", "https://h/rest/", " https://h/rest/ "] {
            let (address, auth) = Address::parse(text, Auth::None).unwrap();
            assert_eq!(address.join("room/").as_str(), "https://h/rest/room/");
            assert_eq!(address.join("house/?address=a+%26+b").as_str(), "https://h/rest/house/?address=a+%26+b");
            assert!(address.ends_in_rest() && address.is_https() && matches!(auth, Auth::None));
        }
        assert!(!Address::parse("http://h", Auth::None).unwrap().0.ends_in_rest());
    }

    #[test]
    fn credentials_in_an_address_are_taken_out_of_it() {
        let (address, auth) = Address::parse("http://us%40er:p%C3%A4ss%@h:8080/rest", Auth::None).unwrap();
        assert_eq!(address.join("").as_str(), "http://h:8080/rest/");
        assert!(matches!(auth, Auth::Basic { user, password } if user == "us@er" && password == "päss%"));
        let both = Address::parse("http://u:hush@h/rest", Auth::Bearer("t".into())).unwrap_err();
        assert!(!both.to_string().contains("hush"));
    }

    #[test]
    fn an_address_of_something_else_is_refused_with_a_reason() {
        for (text, word) in [
            ("h/rest", "https://host/rest/"),
            ("", "https://host/rest/"),
            ("ftp://h/rest", "http or https"),
            ("http://", "host"),
            ("http://h/rest/?x=1", "'?'"),
        ] {
            let error = Address::parse(text, Auth::None).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_quoted_as_the_recorded_calls_show() {
        assert_eq!(quote_plus("1 Cafe & Co, High St. #2 + 50%"), "1+Cafe+%26+Co%2C+High+St.+%232+%2B+50%25");
        assert_eq!(quote_plus("Straße_~-"), "Stra%C3%9Fe_~-");
    }
}
