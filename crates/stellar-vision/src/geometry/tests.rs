use super::*;

fn parse(table: &str) -> Result<Geometry, String> {
    #[derive(Deserialize)]
    struct Graph {
        geometry: Geometry,
    }
    toml::from_str::<Graph>(&format!("geometry = {{ {table} }}"))
        .map(|graph| graph.geometry)
        .map_err(|error| error.to_string())
}

#[test]
fn the_tables_of_manifests_are_parsed() {
    assert_eq!(
        parse(
            r#"resize="shortest_edge", height=224, width=224, filter="bicubic", crop="floor", dtype="u8""#
        ),
        Ok(Geometry::ShortestEdge {
            size: 224,
            filter: Filter::Bicubic,
            crop: CropRounding::Floor
        })
    );
    assert_eq!(
        parse(
            r#"resize="shortest_edge", height=8, width=8, filter="bilinear", crop="half_even", dtype="u8""#
        ),
        Ok(Geometry::ShortestEdge {
            size: 8,
            filter: Filter::Bilinear,
            crop: CropRounding::HalfEven
        })
    );
    assert_eq!(
        parse(
            r#"resize="exact", height=840, width=600, filter="bicubic", crop="none", dtype="u8""#
        ),
        Ok(Geometry::Exact { height: 840, width: 600, filter: Filter::Bicubic })
    );
    assert_eq!(
        parse(r#"resize="letterbox", height=224, width=224, filter="bicubic", dtype="f32""#),
        Ok(Geometry::Letterbox { size: 224 })
    );
    assert_eq!(
        parse(r#"resize="bounded", shortest=800, longest=1333, filter="bilinear", dtype="u8""#),
        Ok(Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear })
    );
}

/// Sizes are rows first. `tests/vision` has many more sizes, and pixels, from the package
/// itself. The cases here include those where the package fails.
#[test]
fn bounded_sizes_are_those_of_the_original() {
    let geometry = Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear };
    for ((width, height), expected) in [
        ((1024, 1024), (800, 800)),
        ((1, 1), (800, 800)),
        ((640, 480), (800, 1066)),
        ((480, 640), (1066, 800)),
        ((800, 1000), (1000, 800)),
        ((6016, 4000), (800, 1203)),
        ((1961, 1635), (800, 959)),
        ((3840, 5760), (1200, 800)),
        ((5000, 200), (53, 1325)),
        ((200, 5000), (1325, 53)),
        ((1920, 1080), (750, 1333)),
        // The shorter side rounds up, so the longer one exceeds the bound, as in the original.
        ((9700, 100), (14, 1358)),
        // The original's shorter side would be 0.
        ((30_000, 2), (1, 1333)),
        ((2, 30_000), (1333, 1)),
    ] {
        assert_eq!(geometry.size_for(width, height), expected, "{width} × {height}");
    }
    for (width, height) in (1..400).flat_map(|short| [(short, 40_000), (70_001, short)]) {
        let (rows, columns) = geometry.size_for(width, height);
        assert!(rows >= 1 && columns >= 1 && rows.max(columns) <= geometry.longest_side());
    }
}

#[test]
fn an_invalid_table_is_rejected_with_the_reason() {
    for (table, reason) in [
        (r#"resize="exact", height=0, width=8, filter="bicubic", dtype="u8""#, "must be 1 to 4096"),
        (
            r#"resize="exact", height=8, width=5000, filter="bicubic", dtype="u8""#,
            "must be 1 to 4096",
        ),
        (
            r#"resize="exact", height=8, width=8, filter="bicubic", dtype="f32""#,
            r#"needs dtype = "u8""#,
        ),
        (
            r#"resize="letterbox", height=8, width=8, filter="bicubic", dtype="u8""#,
            r#"needs dtype = "f32""#,
        ),
        (
            r#"resize="letterbox", height=8, width=8, filter="bilinear", dtype="f32""#,
            r#"needs filter = "bicubic""#,
        ),
        (
            r#"resize="letterbox", height=8, width=9, filter="bicubic", dtype="f32""#,
            "must be equal",
        ),
        (
            r#"resize="shortest_edge", height=8, width=9, filter="bicubic", crop="floor", dtype="u8""#,
            "must be equal",
        ),
        (
            r#"resize="shortest_edge", height=8, width=8, filter="bicubic", dtype="u8""#,
            "needs crop",
        ),
        (
            r#"resize="exact", height=8, width=8, filter="bicubic", crop="floor", dtype="u8""#,
            r#"needs crop = "none""#,
        ),
        (r#"resize="exact", height=8, width=8, filter="nearest", dtype="u8""#, "unknown variant"),
        (r#"resize="squash", height=8, width=8, filter="bicubic", dtype="u8""#, "unknown variant"),
        (
            r#"resize="exact", height=8, width=8, filter="bicubic", dtype="u8", x=1"#,
            "unknown field",
        ),
        (r#"resize="exact", height=8, filter="bicubic", dtype="u8""#, "needs `height` and `width`"),
        (
            r#"resize="exact", height=8, width=8, longest=9, filter="bicubic", dtype="u8""#,
            "neither `shortest` nor `longest`",
        ),
        (
            r#"resize="bounded", height=8, width=8, filter="bilinear", dtype="u8""#,
            "needs `shortest` and `longest`",
        ),
        (
            r#"resize="bounded", shortest=9, longest=8, filter="bilinear", dtype="u8""#,
            "in this order",
        ),
        (
            r#"resize="bounded", shortest=0, longest=8, filter="bilinear", dtype="u8""#,
            "must be 1 to 4096",
        ),
        (
            r#"resize="bounded", shortest=8, longest=5000, filter="bilinear", dtype="u8""#,
            "must be 1 to 4096",
        ),
        (
            r#"resize="bounded", shortest=8, longest=9, filter="bilinear", crop="floor", dtype="u8""#,
            r#"needs crop = "none""#,
        ),
    ] {
        let error = parse(table).expect_err(table);
        assert!(error.contains(reason), "{table}: {error}");
    }
}

#[test]
fn crop_offsets_differ_only_at_margins_of_three_more_than_a_multiple_of_four() {
    for margin in 0..1000_u64 {
        let half_even = (margin as f64 / 2.0).round_ties_even() as u64;
        assert_eq!(CropRounding::HalfEven.offset(margin), half_even);
        assert_eq!(CropRounding::Floor.offset(margin), margin / 2);
    }
}

#[test]
fn extreme_images_take_the_memory_of_their_crop() {
    let line = Image::new(1, 30_000, (0..90_000_u32).map(|i| (i / 3 / 120) as u8).collect());
    for (image, geometry) in [
        (
            &line,
            Geometry::ShortestEdge {
                size: 224,
                filter: Filter::Bicubic,
                crop: CropRounding::Floor,
            },
        ),
        (&line, Geometry::Exact { height: 840, width: 840, filter: Filter::Bicubic }),
        (&line, Geometry::Letterbox { size: 224 }),
        (&line, Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear }),
    ] {
        let (height, width) = geometry.size_for(line.width, line.height);
        let prepared = geometry.apply(image);
        assert_eq!(prepared.shape(), [height as usize, width as usize, 3]);
        assert_eq!(matches!(prepared, Prepared::F32 { .. }), geometry.is_float());
    }
}
