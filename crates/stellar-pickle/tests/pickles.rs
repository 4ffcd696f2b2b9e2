//! Real pickles of Python and numpy, and hostile ones.

use std::{fs, path::PathBuf};

use stellar_pickle::{DEPTH, ENTRIES, Error, TEXT_BYTES, VALUES, Value, read};

const PROMPTS: [&str; 3] = ["a horse", "größer, 猫 🐎", "xxxxx"];

fn data(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/pickle");
    fs::read(folder.join(name)).unwrap()
}

fn images(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| data(&format!("image{at}.jpg"))).collect()
}

fn bytes(value: Option<&Value>) -> Vec<Vec<u8>> {
    let items = value.and_then(Value::items).expect("a list");
    let of = |item: &Value| match item {
        Value::Bytes(blob) => blob.as_slice().to_vec(),
        other => panic!("{other:?} is no image"),
    };
    items.iter().map(of).collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value.expect("a value") {
        Value::Texts(texts) => texts.to_vec(),
        list => list.items().unwrap().iter().map(|it| it.text().unwrap().to_owned()).collect(),
    }
}

#[test]
fn pickles_of_trainers_are_read_at_every_protocol() {
    for protocol in 2..=5 {
        let of = |name: &str| data(&format!("{name}.p{protocol}.pkl"));
        let (deqa, one, batch) = (of("deqa"), of("one"), of("batch"));
        assert_eq!(bytes(read(&deqa).unwrap().get("images")), images(3));
        let one = read(&one).unwrap();
        assert_eq!(bytes(one.get("images")), images(1));
        assert_eq!(texts(one.get("prompts")), PROMPTS[..1]);
        assert!(one.get("metadata").unwrap().entries().unwrap().is_empty());
        assert_eq!(texts(read(&batch).unwrap().get("prompts")), PROMPTS);
        for numpy in ["1.26", "2.2"] {
            let unified = of(&format!("unified.numpy{numpy}"));
            let unified = read(&unified).unwrap();
            assert!(matches!(unified.get("prompts"), Some(Value::Texts(_))));
            assert_eq!(texts(unified.get("prompts")), PROMPTS, "{numpy} {protocol}");
            assert_eq!(bytes(unified.get("images")), images(3));
        }
        let edit = of("edit");
        let edit = read(&edit).unwrap();
        let of_images = edit.get("images").unwrap();
        assert_eq!(bytes(of_images.get("source")), images(2));
        assert_eq!(bytes(of_images.get("edited")), images(3)[1..]);
    }
}

#[test]
fn every_kind_of_value_is_read_at_every_protocol() {
    for protocol in 2..=5 {
        let input = data(&format!("everything.p{protocol}.pkl"));
        let all = read(&input).unwrap();
        let items = |name: &str| all.get(name).unwrap().items().unwrap();
        assert!(matches!(all.get("none"), Some(Value::None)));
        assert!(matches!(items("flags"), [Value::Bool(true), Value::Bool(false)]));
        assert!(matches!(
            items("floats"),
            [Value::Float(0.0), Value::Float(-1.5), Value::Float(_)]
        ));
        let integers: Vec<i64> = items("integers")
            .iter()
            .map(|it| if let Value::Int(number) = it { *number } else { panic!("{it:?}") })
            .collect();
        let wide = i64::from(i32::MAX);
        let expected =
            [0, 255, 256, 65535, 65536, -1, -129, wide, wide + 1, -wide - 2, i64::MAX, i64::MIN];
        assert_eq!(integers, expected);
        let lengths: Vec<_> = items("tuples").iter().map(|it| it.items().unwrap().len()).collect();
        assert_eq!(lengths, [0, 1, 2, 3, 4]);
        assert_eq!(bytes(all.get("bytes")).last().unwrap(), &b"y".repeat(300));
        assert_eq!(texts(all.get("texts")), [String::new(), "größer".to_owned(), "z".repeat(300)]);
        let [Value::List(one), Value::List(two)] = items("twice") else { panic!("two lists") };
        assert!(std::sync::Arc::ptr_eq(one, two), "a memoised list is shared");
        assert_eq!(items("long").len(), 1500);
        assert_eq!(texts(all.get("memo"))[299], "text 299");
        assert!(all.get("nested").and_then(|a| a.get("a")).and_then(|b| b.get("b")).is_some());
    }
}

#[test]
fn a_pickle_that_is_cut_off_anywhere_is_an_error() {
    let mut names = vec!["everything.p2.pkl".to_owned(), "everything.p5.pkl".to_owned()];
    for protocol in 2..=5 {
        names.extend(["1.26", "2.2"].map(|numpy| format!("unified.numpy{numpy}.p{protocol}.pkl")));
    }
    for name in names {
        let whole = data(&name);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{name} up to {end}");
        }
        assert!(read(&[&whole[..], b"N"].concat()).is_err(), "data after the end of {name}");
    }
}

/// Protocol 4, and these opcodes.
fn pickle(opcodes: &[u8]) -> Vec<u8> {
    [b"\x80\x04", opcodes].concat()
}

#[track_caller]
fn refused(opcodes: &[u8], words: &str) {
    let input = pickle(opcodes);
    let error = read(&input).expect_err(words).to_string();
    assert!(error.contains(words), "{error}: no {words}");
}

#[test]
fn nothing_is_called_and_what_a_pickle_names_is_told() {
    for (opcodes, words) in [
        // pickle.dumps of an object whose __reduce__ is os.system, at several protocols.
        (&b"cposix\nsystem\nX\x02\0\0\0id\x85R."[..], "posix system"),
        (
            b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
            "posix system",
        ),
        (b"cbuiltins\neval\nX\x02\0\0\0id\x85R.", "builtins eval"),
        (b"c__builtin__\nbytes\n)R.", "__builtin__ bytes"),
        (b"cnumpy\nload\n)R.", "numpy load"),
        (b"cnumpy.core.multiarray\nscalar\n)R.", "numpy.core.multiarray scalar"),
        (b"cnumpy._core.multiarray\n_reconstruct.x\n.", "_reconstruct.x"),
        (b"c_codecs\ndecode\n.", "_codecs decode"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cnumpy\ndtype\no.", "OBJ"),
        (b"cnumpy\ndtype\n)\x81.", "NEWOBJ"),
        (b"cnumpy\ndtype\n)}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\0.", "EXT2"),
        (b"\x84\x01\0\0\0.", "EXT4"),
        (b"Pabc\n.", "PERSID"),
        (b"NQ.", "BINPERSID"),
        (b"\x8f.", "EMPTY_SET"),
        (b"(\x91.", "FROZENSET"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"I1\n.", "INT"),
        (b"N2.", "DUP"),
        (b"N0.", "POP"),
        (b"\xff.", "0xff"),
    ] {
        refused(opcodes, words);
    }
    // Names are cut, and need no end of line to be found.
    refused(&[b"c", &b"x".repeat(5000)[..]].concat(), "too long");
    let Err(Error::Global { module, .. }) =
        read(&pickle(&[b"c", &b"m".repeat(200)[..], b"\nn\n."].concat()))
    else {
        panic!("an unknown module")
    };
    assert_eq!(module.len(), 80);
}

#[test]
fn known_functions_take_only_what_numpy_gives_them() {
    let dtype = b"cnumpy\ndtype\n\x8c\x02U1\x89\x88\x87R";
    let state = b"(K\x03\x8c\x01<NNNK\x04K\x04K\x08tb";
    let array = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R";
    let whole = |shape: &[u8], data: &[u8]| {
        [&array[..], b"(K\x01", shape, dtype, state, b"\x89", data, b"tb."].concat()
    };
    let input = pickle(&whole(b"K\x01\x85", b"C\x04x\0\0\0"));
    assert_eq!(texts(Some(&read(&input).unwrap())), ["x"]);
    for opcodes in [
        // No call, a call of what is no function, and a function as a value.
        &b"NNR."[..],
        b"cnumpy\ndtype\nNR.",
        b"cnumpy\ndtype\n\x85.",
        b"cnumpy\nndarray\n)R.",
        b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R.",
        b"cnumpy\ndtype\n\x8c\x02U1\x88\x88\x87R.",
        b"c_codecs\nencode\nX\x01\0\0\0a\x8c\x05utf-8\x86R.",
        b"c_codecs\nencode\nX\x03\0\0\0\xe7\x8c\xab\x8c\x06latin1\x86R.",
        // A dtype or an array without its state, a state of something else, and a second one.
        &[&dtype[..], b"."].concat(),
        &[&array[..], b"."].concat(),
        &[&dtype[..], b"(K\x03\x8c\x01>NNNK\x04K\x04K\x08tb."].concat(),
        &[&dtype[..], b"(K\x03\x8c\x01<NNNK\x08K\x04K\x08tb."].concat(),
        &[&dtype[..], state, state, b"."].concat(),
        b"})b.",
        b"N)b.",
        // Shapes that the data do not fit.
        &whole(b"K\x02\x85", b"C\x04x\0\0\0"),
        &whole(b"K\x01K\x01\x86", b"C\x04x\0\0\0"),
        &whole(b"J\xff\xff\xff\xff\x85", b"C\x04x\0\0\0"),
        &whole(b")", b"C\x04x\0\0\0"),
        // No characters: a surrogate, and beyond Unicode.
        &whole(b"K\x01\x85", b"C\x04\0\xd8\0\0"),
        &whole(b"K\x01\x85", b"C\x04\xff\xff\xff\xff"),
    ] {
        let input = pickle(opcodes);
        assert!(read(&input).is_err(), "{}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn lengths_that_lie_are_refused_before_anything_is_allocated() {
    for opcodes in [
        &b"X\xff\xff\xff\xffx."[..],
        b"B\xff\xff\xff\x7fx.",
        b"C\xffx.",
        b"\x8c\x05x.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        b"\x96\0\0\0\0\0\0\0\x40x.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"\x8b\xff\xff\xff\x7f1.",
        b"\x8a\xff1.",
    ] {
        refused(opcodes, "truncated");
    }
    refused(&[b"\x8a\x09", &[1; 9][..], b"."].concat(), "64 bits");
}

#[test]
fn stacks_marks_and_memos_that_do_not_exist_are_refused() {
    for opcodes in [
        &b"."[..],
        b"NN.",
        b"(.",
        b"N(.",
        b"a.",
        b"]a.",
        b"(e.",
        b"e.",
        b"t.",
        b"]Nt.",
        b"\x85.",
        b"N\x86.",
        b"(N\x86.",
        b"]N(a.",
        b"}Ns.",
        b"}(Nu.",
        b"NN\x93.",
        b"h\0.",
        b"j\0\0\0\0.",
        b"\x94.",
        b"N(\x94.",
        b"NNa.",
        b"NNNs.",
        b"R.",
        b"NR.",
        b"b.",
        b"X\x02\0\0\0\xed\xa0.",
        b"X\x03\0\0\0\xed\xa0\x80.",
        b"\x80\x04N.",
    ] {
        let input = pickle(opcodes);
        assert!(read(&input).is_err(), "{opcodes:?}");
    }
    for start in [&b""[..], b"\x80", b"\x80\x01N.", b"\x80\x06N.", b"(dp0\n.", b"{\"a\": 1}"] {
        assert!(read(start).is_err(), "{start:?}");
    }
}

#[test]
fn containers_change_only_until_something_contains_them() {
    // a = []; a.append(a), and the same through a tuple and a dict.
    for opcodes in [
        &b"]\x94h\0a."[..],
        b"]\x94h\0\x85a.",
        b"}\x94Nh\0s.",
        b"]\x94]h\0ah\0Na.",
        b"]\x94h\0\x85h\0Na.",
    ] {
        let input = pickle(opcodes);
        assert!(read(&input).is_err(), "{opcodes:?}");
    }
    let twice = pickle(b"]\x94h\0\x86.");
    assert_eq!(read(&twice).unwrap().items().unwrap().len(), 2);
}

#[test]
fn nesting_is_bounded_and_shared_structures_take_no_time() {
    let lists = |depth: usize| {
        pickle(&[b"]".repeat(depth), b"a".repeat(depth - 1), b".".to_vec()].concat())
    };
    assert!(read(&lists(DEPTH)).is_ok());
    assert!(read(&lists(DEPTH + 1)).is_err());
    assert!(read(&lists(ENTRIES)).is_err());
    let tuples = |depth: usize| pickle(&[&b")"[..], &b"\x85".repeat(depth), b"."].concat());
    assert!(read(&tuples(DEPTH - 1)).is_ok() && read(&tuples(DEPTH)).is_err());
    assert!(read(&tuples(3_000_000)).is_err());
    // A reader that copies them would make 2³¹ values.
    let doubled: Vec<u8> = (0..DEPTH - 1).flat_map(|at| [0x94, b'h', at as u8, 0x86]).collect();
    let bomb = pickle(&[&b")"[..], &doubled, b"."].concat());
    let value = read(&bomb).unwrap();
    assert_eq!(format!("{value:?}"), "tuple");
}

#[test]
fn entries_and_values_are_bounded() {
    refused(&b"N".repeat(ENTRIES + 1), "on the stack");
    refused(&b"(".repeat(ENTRIES + 1), "on the stack");
    let puts: Vec<u8> =
        (0..=ENTRIES as u32).flat_map(|at| [&b"r"[..], &at.to_le_bytes()].concat()).collect();
    refused(&[&b"N"[..], &puts, b"."].concat(), "in the memo");
    // A list that is filled in parts: the stack stays low.
    let part = [&b"("[..], &b"N".repeat(1000), b"e"].concat();
    refused(&[&b"]"[..], &part.repeat(VALUES / 1000 + 1)].concat(), "values");
}

#[test]
fn copies_are_bounded_however_often_a_text_is_used() {
    // One text, encoded again and again.
    let text = "x".repeat(60_000);
    let length = (text.len() as u32).to_le_bytes();
    let start = [&b"X"[..], &length, text.as_bytes(), b"\x940"].concat();
    let start = &start[..start.len() - 1];
    let again = b"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R".repeat(1000);
    refused(&[start, &again, b"."].concat(), "bytes in texts");
    // One array's data, decoded again and again.
    let data = vec![0; 1 << 20];
    let size = (data.len() as u64).to_le_bytes();
    let letters = data.len() as i32 / 4;
    let name = format!("U{letters}");
    let mut body = [&b"\x96"[..], &size, &data, b"\x94"].concat();
    body.extend(b"cnumpy\ndtype\n\x8c");
    body.push(name.len() as u8);
    body.extend(name.bytes());
    body.extend(b"\x89\x88\x87R\x94(K\x03\x8c\x01<NNNJ");
    body.extend((data.len() as i32).to_le_bytes());
    body.extend(b"K\x04K\x08tb0");
    body.pop();
    let one = b"cnumpy.core.numeric\n_frombuffer\n(h\0h\x01K\x01\x85\x8c\x01CtR";
    body.extend(one.repeat(TEXT_BYTES / data.len() + 1));
    refused(&[&body[..], b"."].concat(), "MiB of text arrays");
}
