//! Arrays of numpy: `.npy` files of little-endian float32 in C order.

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the shape and the values of a file.
///
/// # Errors
/// Why it is not such an array.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin like an .npy file")?;
    let (header, data) = match rest {
        [1, 0, a, b, rest @ ..] => split(rest, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, 0, a, b, c, d, rest @ ..] => {
            split(rest, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => None,
    }
    .ok_or("its header is cut off")?;
    let header = String::from_utf8_lossy(header);
    if !header.contains("'descr': '<f4'") || !header.contains("'fortran_order': False") {
        return Err(format!("expected float32 in C order, found {}", header.trim()));
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let shape = shape.ok_or("its header has no shape")?.0;
    let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
    let shape: Vec<usize> = lengths
        .map(|length| length.parse().map_err(|_| format!("its shape has {length:?}")))
        .collect::<Result<_, _>>()?;
    let count = shape.iter().try_fold(1_usize, |all, length| all.checked_mul(*length));
    if count.and_then(|count| count.checked_mul(4)) != Some(data.len()) {
        return Err(format!("its shape is {shape:?}, but it has {} bytes", data.len()));
    }
    let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok((shape, values.collect()))
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, values: &[f32]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[1, 0]].concat();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn a_file_of_numpy_is_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n";
        assert_eq!(read(&file(header, &[1.5, -2.0])), Ok((vec![2, 1], vec![1.5, -2.0])));
        let scalar = "{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n";
        assert_eq!(read(&file(scalar, &[3.0])), Ok((vec![], vec![3.0])));
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
        };
        for (bytes, reason) in [
            (b"PK".to_vec(), "does not begin"),
            (file(&header("<f8", "(1,)"), &[1.0, 0.0]), "expected float32"),
            (file(&header("<f4", "(3,)"), &[1.0]), "but it has 4 bytes"),
            (file(&header("<f4", "(x,)"), &[1.0]), "its shape has \"x\""),
            (file(&header("<f4", "(99999999999999, 99999999999999)"), &[1.0]), "4 bytes"),
            ([MAGIC, &[1, 0, 255, 255]].concat(), "cut off"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
