//! Rows of a pyramid level, one strip of columns at a time: area means, as planes centred on zero.
//!
//! Sums of bytes are exact in 16 bits if a window has no more than 257 pixels. Larger windows, in
//! the last few levels, are summed in 32 bits. Levels that are much smaller than the image are
//! computed all at once, because reading the image from memory is then most of the work.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_epi16, _mm_and_si128, _mm_cvtsi64_si128, _mm_loadl_epi64,
    _mm_loadu_si128, _mm_setzero_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi16,
    _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm256_add_epi16, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi16, _mm256_cvtepu16_epi32, _mm256_fmsub_ps, _mm256_mul_ps, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_storeu_si256,
};

use crate::registers::{Eight, load, store};
use stellar_vision::{Image, area::window};

/// Middle of the range of levels, which is subtracted as in the graph.
pub(super) const MIDDLE: f32 = 127.5;
/// Maximum number of pixels in a window whose sum fits into 16 bits.
const MOST: usize = u16::MAX as usize / u8::MAX as usize;

/// A strip of a level.
pub(super) struct Rows<'a> {
    image: &'a Image,
    /// Number of rows of the level.
    height: u32,
    /// First byte of the strip in a row of the image.
    from: usize,
    /// Length of the strip in a row of the image, in bytes.
    bytes: usize,
    /// Start of each column's window in the strip, in bytes.
    firsts: Vec<u32>,
    /// All bits set if the window is as long as the longest one. Other windows are one pixel
    /// shorter.
    masks: Vec<u64>,
    /// Reciprocal of the window's number of columns.
    shares: Vec<f32>,
    /// Number of columns of the longest window.
    longest: usize,
    sums: Vec<u16>,
    wide_sums: Vec<u32>,
}

impl<'a> Rows<'a> {
    /// Prepares columns `left` to `left + count` of the image's level of `width` × `height`, which
    /// must not be larger than the image.
    pub(super) fn new(image: &'a Image, width: u32, height: u32, left: u32, count: u32) -> Self {
        let windows: Vec<_> = (left..left + count).map(|x| window(x, image.width, width)).collect();
        let longest =
            windows.iter().map(|(first, end)| end - first).max().expect("a strip has columns");
        let (start, end) = (windows[0].0, windows[windows.len() - 1].1);
        // Padded to groups of eight by repeating the last column.
        let column = |x: u32| windows[(x as usize).min(windows.len() - 1)];
        let columns = || (0..count.next_multiple_of(8)).map(column);
        let bytes = 3 * (end - start);
        Self {
            image,
            height,
            from: 3 * start,
            bytes,
            firsts: columns().map(|(first, _)| 3 * (first - start) as u32).collect(),
            masks: columns()
                .map(|(first, end)| if end - first == longest { u64::MAX } else { 0 })
                .collect(),
            shares: columns().map(|(first, end)| 1.0 / (end - first) as f32).collect(),
            longest,
            // A shorter window at the end is read like one of full length, and pixels are read as
            // four values.
            sums: vec![0; bytes + 4],
            wide_sums: Vec::new(),
        }
    }

    /// Writes row `y` as three planes of `stride` groups of eight values.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fill(&mut self, y: u32, planes: &mut [Eight], stride: usize) {
        let (first, end) = window(y, self.image.height, self.height);
        let share = 1.0 / (end - first) as f32;
        if (end - first) * self.longest > MOST {
            self.fill_wide(first, end, share, planes, stride);
            return;
        }
        self.add_up(first, end);
        match self.longest {
            2 => self.means::<2>(share, planes, stride),
            3 => self.means::<3>(share, planes, stride),
            4 => self.means::<4>(share, planes, stride),
            5 => self.means::<5>(share, planes, stride),
            _ => self.means::<0>(share, planes, stride),
        }
    }

    /// Returns the end (exclusive) of the image rows that row `y` is computed from.
    fn end(&self, y: u32) -> usize {
        window(y, self.image.height, self.height).1
    }

    /// Adds up rows of the image.
    #[target_feature(enable = "avx2,fma")]
    fn add_up(&mut self, first: usize, end: usize) {
        let image_row = 3 * self.image.width as usize;
        let rows = &self.image.pixels
            [image_row * first + self.from..image_row * (end - 1) + self.from + self.bytes];
        let sums = &mut self.sums[..self.bytes];
        let (fours, rest) = sums.as_chunks_mut::<64>();
        for (at, sums) in fours.iter_mut().enumerate() {
            let mut totals = [_mm256_setzero_si256(); 4];
            for row in rows[64 * at..].chunks(image_row) {
                let row: &[u8; 64] = row.first_chunk().expect("a strip's rows are whole");
                for (total, bytes) in totals.iter_mut().zip(row.as_chunks::<16>().0) {
                    *total = _mm256_add_epi16(*total, widened(bytes));
                }
            }
            for (sums, total) in sums.as_chunks_mut::<16>().0.iter_mut().zip(totals) {
                store_words(sums, total);
            }
        }
        rest.fill(0);
        let done = 64 * fours.len();
        for row in rows.chunks(image_row) {
            for (sum, &byte) in rest.iter_mut().zip(&row[done..]) {
                *sum += u16::from(byte);
            }
        }
    }

    /// Computes the means over columns of the sums. `K` is the length of the longest window, or 0
    /// for any length.
    #[target_feature(enable = "avx2,fma")]
    fn means<const K: usize>(&self, share: f32, planes: &mut [Eight], stride: usize) {
        let longest = if K > 0 { K } else { self.longest };
        let (red, rest) = planes.split_at_mut(stride);
        let (green, blue) = rest.split_at_mut(stride);
        let (share, middle) = (_mm256_set1_ps(share), _mm256_set1_ps(MIDDLE));
        let columns = self.firsts.as_chunks::<8>().0.iter().zip(self.masks.as_chunks::<8>().0);
        let columns = columns.zip(self.shares.as_chunks::<8>().0);
        for ((((firsts, masks), shares), red), (green, blue)) in
            columns.zip(red).zip(green.iter_mut().zip(blue.iter_mut()))
        {
            let mut pixels = [_mm_setzero_si128(); 8];
            for (pixel, (&first, &mask)) in pixels.iter_mut().zip(firsts.iter().zip(masks)) {
                let sums = &self.sums[first as usize..];
                let mut sum = four_words(sums);
                for column in 1..longest - 1 {
                    sum = _mm_add_epi16(sum, four_words(&sums[3 * column..]));
                }
                let last = four_words(&sums[3 * (longest - 1)..]);
                *pixel =
                    _mm_add_epi16(sum, _mm_and_si128(last, _mm_cvtsi64_si128(mask.cast_signed())));
            }
            // Transposes R G B x of eight pixels to eight R, eight G, eight B.
            let [a, b, c, d, e, f, g, h] = pixels;
            let (ab, cd) = (_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
            let (ef, gh) = (_mm_unpacklo_epi16(e, f), _mm_unpacklo_epi16(g, h));
            let (rg, rg_next) = (_mm_unpacklo_epi32(ab, cd), _mm_unpacklo_epi32(ef, gh));
            let (bx, bx_next) = (_mm_unpackhi_epi32(ab, cd), _mm_unpackhi_epi32(ef, gh));
            let factor = _mm256_mul_ps(load(shares), share);
            store(red, level(_mm_unpacklo_epi64(rg, rg_next), factor, middle));
            store(green, level(_mm_unpackhi_epi64(rg, rg_next), factor, middle));
            store(blue, level(_mm_unpacklo_epi64(bx, bx_next), factor, middle));
        }
    }

    /// Like [`fill`](Self::fill), with sums of 32 bits. These suffice: a level with windows of 16
    /// million pixels has no position.
    #[target_feature(enable = "avx2,fma")]
    fn fill_wide(
        &mut self,
        first: usize,
        end: usize,
        share: f32,
        planes: &mut [Eight],
        stride: usize,
    ) {
        let mut sums = std::mem::take(&mut self.wide_sums);
        sums.clear();
        sums.resize(self.bytes, 0);
        for part in (first..end).step_by(MOST) {
            self.add_up(part, end.min(part + MOST));
            for (sum, &part) in sums.iter_mut().zip(&self.sums) {
                *sum += u32::from(part);
            }
        }
        let columns = self.firsts.iter().zip(&self.masks).zip(&self.shares);
        for (x, ((&first, &mask), &columns_share)) in columns.enumerate() {
            let length = self.longest - usize::from(mask == 0);
            let mut total = [0_u32; 3];
            for pixel in sums[first as usize..][..3 * length].as_chunks::<3>().0 {
                for (total, sum) in total.iter_mut().zip(pixel) {
                    *total += sum;
                }
            }
            for (channel, total) in total.into_iter().enumerate() {
                planes[channel * stride + x / 8][x % 8] =
                    total as f32 * (share * columns_share) - MIDDLE;
            }
        }
        self.wide_sums = sums;
    }
}

/// A level computed as a whole, for images that are much larger: rows of three planes of `stride`
/// groups of eight values.
pub(super) struct Level {
    stride: usize,
    data: Vec<Eight>,
}

/// Rows of the image between two checks for rows that can be computed: few enough to still be in
/// the cache.
const BAND: usize = 8;

impl Level {
    /// Computes several levels of an image in one pass over it.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn render(image: &Image, sizes: &[(u32, u32)]) -> Vec<Self> {
        let begin = |&(width, height): &(u32, u32)| {
            let stride = width.div_ceil(8) as usize;
            let level = Self { stride, data: vec![[0.0; 8]; 3 * stride * height as usize] };
            (level, Rows::new(image, width, height, 0, width), 0)
        };
        let mut levels: Vec<_> = sizes.iter().map(begin).collect();
        let height = image.height as usize;
        for end in (BAND..height + BAND).step_by(BAND) {
            for (level, rows, next) in &mut levels {
                while *next < rows.height && rows.end(*next) <= end {
                    let row = 3 * level.stride;
                    rows.fill(*next, &mut level.data[row * *next as usize..][..row], level.stride);
                    *next += 1;
                }
            }
        }
        levels.into_iter().map(|(level, ..)| level).collect()
    }
}

/// Source of the rows of a strip.
pub(super) enum Source<'a> {
    /// Computed from the image.
    Image(Rows<'a>),
    /// Copied from a level: the first column and the number of columns.
    Level(&'a Level, usize, usize),
}

impl Source<'_> {
    /// Writes row `y` as three planes of `stride` groups of eight values.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fill(&mut self, y: usize, planes: &mut [Eight], stride: usize) {
        match self {
            Self::Image(rows) => rows.fill(y as u32, planes, stride),
            Self::Level(level, left, count) => {
                let row = level.data[3 * level.stride * y..][..3 * level.stride]
                    .chunks_exact(level.stride);
                for (plane, from) in planes.chunks_mut(stride).zip(row) {
                    let from = &from.as_flattened()[*left..*left + *count];
                    plane.as_flattened_mut()[..*count].copy_from_slice(from);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn level(sums: __m128i, factor: __m256, middle: __m256) -> __m256 {
    _mm256_fmsub_ps(_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums)), factor, middle)
}

/// Widens 16 bytes to words.
#[target_feature(enable = "avx2")]
fn widened(bytes: &[u8; 16]) -> __m256i {
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
    let half = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_cvtepu8_epi16(half)
}

#[target_feature(enable = "avx2")]
fn four_words(words: &[u16]) -> __m128i {
    let words: &[u16; 4] = words.first_chunk().expect("sums reach far enough");
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 8 bytes that are read; the load needs no alignment.
    unsafe {
        _mm_loadl_epi64(words.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn store_words(words: &mut [u16; 16], register: __m256i) {
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the reference covers the 32 bytes that are written; the store needs no alignment.
    unsafe {
        _mm256_storeu_si256(words.as_mut_ptr().cast(), register);
    }
}
