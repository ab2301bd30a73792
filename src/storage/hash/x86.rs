//! SHA-1 (FIPS 180-4) of 8 or 16 messages side by side in the vectors of x86-64: lane `i` of each
//! vector belongs to message `i`.
//!
//! The intrinsics of `std` are safe where the compiler knows that the processor has them. The
//! tokens of `archmage` prove this for the present processor, because only a query of the processor
//! creates them. With AVX-512 a round takes 7 operations (two of them, a rotation and a sum, wait
//! for the round before) and its word 3; with AVX2, which neither rotates nor combines three
//! operands, 12 to 14 and 6. Transposing the lanes' blocks takes 80 operations for 16 lanes and 80
//! for 8. That makes some 850 operations for 1,024 bytes in 16 lanes and 1,500 for 512 in 8; 400
//! and 550 cycles were measured, so one group keeps the processor busy. Two interleaved groups were
//! no faster, because their words do not fit the 32 registers.
//!
//! The 80 rounds are unrolled by a macro: a loop would load the words from memory and take twice
//! the time. There are no closures, because the compiler would build them without the vectors'
//! features and call them.

use archmage::{SimdToken, X64V3Token, X64V4Token, arcane};

use super::{BLOCK_LEN, LANE_MAX, ROUND_CONSTANTS, Row, State};

/// Vectors that this processor has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vectors {
    /// 8 lanes.
    Avx2(X64V3Token),
    /// 16 lanes.
    Avx512(X64V4Token),
}

impl Vectors {
    /// Returns those of this processor.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        let avx2 = X64V3Token::summon().map(Self::Avx2);
        avx2.into_iter().chain(X64V4Token::summon().map(Self::Avx512))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Avx2(_) => "8 lanes (AVX2)",
            Self::Avx512(_) => "16 lanes (AVX-512)",
        }
    }

    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Avx2(_) => 8,
            Self::Avx512(_) => 16,
        }
    }

    /// Compresses one row of complete blocks into each lane's state; all rows have the same length.
    pub(super) fn compress(self, state: &mut State, rows: &[Row<'_>; LANE_MAX]) {
        match self {
            Self::Avx2(token) => avx2::compress(token, state, rows),
            Self::Avx512(token) => avx512::compress(token, state, rows),
        }
    }
}

/// Rounds by number. The first 16 use the words of the block, the others a word derived from four
/// earlier ones.
macro_rules! rounds {
    ($state:ident, $words:ident, $mix:ident, $k:expr, words: $($t:literal)*) => {$(
        $state = round($state, $mix($state[1], $state[2], $state[3]), $words[$t], $k);
    )*};
    ($state:ident, $words:ident, $mix:ident, $k:expr, next: $($t:literal)*) => {$(
        let mixed = parity($words[($t + 13) % 16], $words[($t + 8) % 16], $words[($t + 2) % 16]);
        $words[$t % 16] = rotate::<1, 31>(xor(mixed, $words[$t % 16]));
        $state = round($state, $mix($state[1], $state[2], $state[3]), $words[$t % 16], $k);
    )*};
}

/// SHA-1 over vectors whose operations are in scope: `rotate`, `xor`, `choose`, `parity`,
/// `majority`, `load`, `store`, `splat`, `add`, and `words`, which transposes one block of each
/// lane into 16 words of all lanes.
macro_rules! compress {
    ($token:ident, $features:literal, $vector:ident, $lanes:literal) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn round(state: [$vector; 5], mixed: $vector, word: $vector, k: $vector) -> [$vector; 5] {
            let [a, b, c, d, e] = state;
            let sum = add(add(e, word), add(mixed, k));
            [add(sum, rotate::<5, 27>(a)), a, rotate::<30, 2>(b), c, d]
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn rounds(mut s: [$vector; 5], mut w: [$vector; 16], k: [$vector; 4]) -> [$vector; 5] {
            rounds!(s, w, choose, k[0], words: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            rounds!(s, w, choose, k[0], next: 16 17 18 19);
            rounds!(s, w, parity, k[1], next: 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39);
            rounds!(s, w, majority, k[2], next: 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59);
            rounds!(s, w, parity, k[3], next: 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79);
            s
        }

        #[arcane]
        pub(super) fn compress(_token: $token, state: &mut State, rows: &[Row<'_>; LANE_MAX]) {
            let mut k = [splat(0); 4];
            for (vector, constant) in k.iter_mut().zip(ROUND_CONSTANTS) {
                *vector = splat(constant);
            }
            let mut sums = [splat(0); 5];
            for (sum, lanes) in sums.iter_mut().zip(&*state) {
                *sum = load(lanes);
            }
            for at in 0..rows[0].len() {
                let mut blocks = [&[0; BLOCK_LEN]; $lanes];
                for (block, row) in blocks.iter_mut().zip(rows) {
                    *block = &row[at];
                }
                let after = rounds(sums, words(blocks), k);
                for (sum, after) in sums.iter_mut().zip(after) {
                    *sum = add(*sum, after);
                }
            }
            for (sum, lanes) in sums.iter().zip(state) {
                store(lanes, *sum);
            }
        }
    };
}

mod avx512 {
    use archmage::intrinsics::x86_64::*;

    use super::*;

    /// The operations of the rounds, by name.
    macro_rules! operation {
        ($name:ident($($operand:ident),*) = $body:expr) => {
            #[target_feature(enable = "avx512f,avx512bw")]
            #[inline]
            fn $name($($operand: __m512i),*) -> __m512i {
                $body
            }
        };
    }

    // Three operands, combined bit by bit by a truth table.
    operation!(choose(x, y, z) = _mm512_ternarylogic_epi32::<0xca>(x, y, z));
    operation!(parity(x, y, z) = _mm512_ternarylogic_epi32::<0x96>(x, y, z));
    operation!(majority(x, y, z) = _mm512_ternarylogic_epi32::<0xe8>(x, y, z));
    operation!(xor(x, y) = _mm512_xor_si512(x, y));
    operation!(add(x, y) = _mm512_add_epi32(x, y));

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m512i) -> __m512i {
        _mm512_rol_epi32::<LEFT>(x)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn splat(word: u32) -> __m512i {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(lanes: &[u32; LANE_MAX]) -> __m512i {
        _mm512_loadu_si512(lanes)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(lanes: &mut [u32; LANE_MAX], vector: __m512i) {
        _mm512_storeu_si512(lanes, vector);
    }

    /// Transposes 16 x 16 words in four steps: words, pairs, and quarters of vectors twice.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn words(blocks: [&[u8; BLOCK_LEN]; 16]) -> [__m512i; 16] {
        let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        let swap = _mm512_broadcast_i32x4(swap);
        let mut row = [splat(0); 16];
        for lane in 0..16 {
            row[lane] = _mm512_shuffle_epi8(_mm512_loadu_si512(blocks[lane]), swap);
        }
        let mut half = row;
        for i in 0..8 {
            half[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
            half[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
        }
        // Quarter q of row[4 * i + j]: word 4 * q + j of the blocks 4 * i to 4 * i + 3.
        for i in (0..16).step_by(4) {
            row[i] = _mm512_unpacklo_epi64(half[i], half[i + 2]);
            row[i + 1] = _mm512_unpackhi_epi64(half[i], half[i + 2]);
            row[i + 2] = _mm512_unpacklo_epi64(half[i + 1], half[i + 3]);
            row[i + 3] = _mm512_unpackhi_epi64(half[i + 1], half[i + 3]);
        }
        let mut words = row;
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x44>(row[j], row[j + 4]);
            let low_rest = _mm512_shuffle_i32x4::<0x44>(row[j + 8], row[j + 12]);
            let high = _mm512_shuffle_i32x4::<0xee>(row[j], row[j + 4]);
            let high_rest = _mm512_shuffle_i32x4::<0xee>(row[j + 8], row[j + 12]);
            words[j] = _mm512_shuffle_i32x4::<0x88>(low, low_rest);
            words[j + 4] = _mm512_shuffle_i32x4::<0xdd>(low, low_rest);
            words[j + 8] = _mm512_shuffle_i32x4::<0x88>(high, high_rest);
            words[j + 12] = _mm512_shuffle_i32x4::<0xdd>(high, high_rest);
        }
        words
    }

    compress!(X64V4Token, "avx512f,avx512bw", __m512i, 16);
}

mod avx2 {
    use archmage::intrinsics::x86_64::*;

    use super::*;

    /// The operations of the rounds, by name.
    macro_rules! operation {
        ($name:ident($($operand:ident),*) = $body:expr) => {
            #[target_feature(enable = "avx2")]
            #[inline]
            fn $name($($operand: __m256i),*) -> __m256i {
                $body
            }
        };
    }

    operation!(and(x, y) = _mm256_and_si256(x, y));
    operation!(or(x, y) = _mm256_or_si256(x, y));
    operation!(xor(x, y) = _mm256_xor_si256(x, y));
    operation!(add(x, y) = _mm256_add_epi32(x, y));
    operation!(choose(x, y, z) = xor(z, and(x, xor(y, z))));
    operation!(parity(x, y, z) = xor(x, xor(y, z)));
    operation!(majority(x, y, z) = or(and(x, y), and(z, or(x, y))));

    #[target_feature(enable = "avx2")]
    #[inline]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
        or(_mm256_slli_epi32::<LEFT>(x), _mm256_srli_epi32::<RIGHT>(x))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn splat(word: u32) -> __m256i {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(lanes: &[u32; LANE_MAX]) -> __m256i {
        _mm256_loadu_si256(&lanes.as_chunks::<8>().0[0])
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(lanes: &mut [u32; LANE_MAX], vector: __m256i) {
        _mm256_storeu_si256(&mut lanes.as_chunks_mut::<8>().0[0], vector);
    }

    /// Transposes two matrices of 8 x 8 words in three steps: words, pairs, halves of vectors.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn words(blocks: [&[u8; BLOCK_LEN]; 8]) -> [__m256i; 16] {
        let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        let swap = _mm256_broadcastsi128_si256(swap);
        let mut words = [splat(0); 16];
        for first in [0, 8] {
            let mut row = [splat(0); 8];
            for lane in 0..8 {
                let bytes = &blocks[lane].as_chunks::<32>().0[first / 8];
                row[lane] = _mm256_shuffle_epi8(_mm256_loadu_si256(bytes), swap);
            }
            let mut half = row;
            for i in 0..4 {
                half[2 * i] = _mm256_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
                half[2 * i + 1] = _mm256_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
            }
            for i in [0, 4] {
                row[i] = _mm256_unpacklo_epi64(half[i], half[i + 2]);
                row[i + 1] = _mm256_unpackhi_epi64(half[i], half[i + 2]);
                row[i + 2] = _mm256_unpacklo_epi64(half[i + 1], half[i + 3]);
                row[i + 3] = _mm256_unpackhi_epi64(half[i + 1], half[i + 3]);
            }
            for j in 0..4 {
                words[first + j] = _mm256_permute2x128_si256::<0x20>(row[j], row[j + 4]);
                words[first + j + 4] = _mm256_permute2x128_si256::<0x31>(row[j], row[j + 4]);
            }
        }
        words
    }

    compress!(X64V3Token, "avx2", __m256i, 8);
}
