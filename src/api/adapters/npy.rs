//! Reads numpy's `.npy` files of 8-bit images.
//!
//! The header is a Python dict literal. It is parsed strictly and never evaluated. Format:
//! `numpy/lib/format.py`.

use std::ops::Range;

/// Longest header, in bytes.
const MOST_HEADER: usize = 4 << 10;

/// An array of shape `[count, height, width, 3]` of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) count: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Where the pixels are in the file.
    pub(super) data: Range<usize>,
}

/// Parses a file. The error says what is wrong.
pub(super) fn parse(file: &[u8]) -> Result<Images, String> {
    let truncated = || "the .npy file is truncated".to_owned();
    let rest = file.strip_prefix(b"\x93NUMPY").ok_or("there is no .npy file after the line")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(truncated)?;
    let (length, rest) = match version {
        [1, 0] => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(truncated)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        [2 | 3, 0] => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        [major, minor] => return Err(format!("the .npy file has the version {major}.{minor}")),
    };
    if length > MOST_HEADER {
        return Err(format!("the header of the .npy file is longer than {MOST_HEADER} bytes"));
    }
    let (header, data) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let header = std::str::from_utf8(header).map_err(|_| "the .npy header is not text")?;
    let shape = Literal { rest: header }.shape().ok_or_else(|| {
        let shown: String = header.trim_end().chars().take(120).collect();
        format!(
            "the .npy header {shown:?} is not that of an array of bytes in C order: send uint8 of \
                shape [batch, height, width, 3]"
        )
    })?;
    let &[count, height, width, 3] = &shape[..] else {
        return Err(format!("the array has the shape {shape:?}: send [batch, height, width, 3]"));
    };
    if count == 0 || height == 0 || width == 0 {
        return Err(format!("the array has the shape {shape:?}: it has no pixels"));
    }
    let size = count.checked_mul(height).and_then(|it| it.checked_mul(width)?.checked_mul(3));
    if size != Some(data.len()) {
        let found = data.len();
        return Err(format!("the array of shape {shape:?} has {found} bytes of data"));
    }
    Ok(Images { count, height, width, data: file.len() - data.len()..file.len() })
}

/// A dict literal with exactly the three keys of a header, in any order.
struct Literal<'a> {
    rest: &'a str,
}

impl Literal<'_> {
    fn shape(mut self) -> Option<Vec<usize>> {
        let (mut descr, mut order, mut shape) = (false, false, None);
        self.take("{")?;
        while self.take("}").is_none() {
            if self.take("'descr'").is_some() && !descr {
                self.take(":")?;
                self.take("'|u1'")?;
                descr = true;
            } else if self.take("'fortran_order'").is_some() && !order {
                self.take(":")?;
                self.take("False")?;
                order = true;
            } else if self.take("'shape'").is_some() && shape.is_none() {
                self.take(":")?;
                shape = Some(self.numbers()?);
            } else {
                return None;
            }
            if self.take(",").is_none() {
                self.take("}")?;
                break;
            }
        }
        let ends = self.rest.trim_end_matches(' ');
        (descr && order && (ends.is_empty() || ends == "\n")).then_some(shape).flatten()
    }

    fn numbers(&mut self) -> Option<Vec<usize>> {
        let mut numbers = Vec::new();
        self.take("(")?;
        while self.take(")").is_none() {
            let end = self.rest.find(|letter: char| !letter.is_ascii_digit())?;
            let (digits, rest) = self.rest.split_at(end);
            // Python has no numbers with leading zeros.
            if digits.len() > 1 && digits.starts_with('0') {
                return None;
            }
            numbers.push(digits.parse().ok()?);
            self.rest = rest.trim_start_matches(' ');
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(numbers)
    }

    /// Takes this text, and spaces after it.
    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?.trim_start_matches(' ');
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn headers_of_numpy_are_read() {
        for header in [
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2, 3), }           \n",
            "{'shape': (2,1,2,3), 'descr': '|u1', 'fortran_order': False}\n",
        ] {
            let file = file(header, &[7; 12]);
            let data = file.len() - 12..file.len();
            assert_eq!(parse(&file), Ok(Images { count: 2, height: 1, width: 2, data }));
        }
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 3), }\n";
        let length = u32::try_from(header.len()).unwrap().to_le_bytes();
        for version in [2, 3] {
            let file =
                [b"\x93NUMPY", &[version, 0][..], &length, header.as_bytes(), b"rgb"].concat();
            assert_eq!(parse(&file).unwrap().count, 1);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let good = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 3), }\n";
        assert!(parse(&file(good, b"rgb")).is_ok());
        for (from, to) in [
            ("'|u1'", "'<f4'"),
            ("'|u1'", "'|O'"),
            ("'|u1'", "[('a', '|u1')]"),
            ("False", "True"),
            ("False", "0"),
            ("(1, 1, 1, 3)", "(1, 1, 1)"),
            ("(1, 1, 1, 3)", "(1, 1, 1, 4)"),
            ("(1, 1, 1, 3)", "(2, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(0, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(01, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(-1, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(1L, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(4611686018427387904, 4, 1, 3)"),
            ("(1, 1, 1, 3)", "(99999999999999999999, 1, 1, 3)"),
            ("(1, 1, 1, 3)", "(__import__('os').system('id'), 1, 1, 3)"),
            ("'shape'", "'form'"),
            ("'shape'", "'descr'"),
            (", }\n", ", 'more': 1, }\n"),
            (", }\n", "\n"),
            ("}\n", "} + {}\n"),
        ] {
            let header = good.replacen(from, to, 1);
            assert_ne!(header, good, "{from}");
            assert!(parse(&file(&header, b"rgb")).is_err(), "{header}");
        }
        let whole = file(good, b"rgb");
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(parse(&[&whole[..], b"x"].concat()).is_err());
        assert!(parse(b"\x93NUMPY\x02\0\xff\xff\xff\xff{}").unwrap_err().contains("longer"));
        assert!(parse(b"\x93NUMPY\x09\0").unwrap_err().contains("9.0"));
    }
}
