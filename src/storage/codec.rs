//! The numbers that stand for codecs on the disk. None is ever given another meaning.

use crate::domain::Codec;

pub(crate) fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::Raw => 0,
        Codec::F32 => 1,
        Codec::Zstd => 2,
    }
}

pub(crate) fn codec_of(number: u8) -> Option<Codec> {
    match number {
        0 => Some(Codec::Raw),
        1 => Some(Codec::F32),
        2 => Some(Codec::Zstd),
        _ => None,
    }
}
