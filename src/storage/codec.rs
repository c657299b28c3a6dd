//! The numbers that stand for codecs and content codings on the disk. None is ever given another meaning.

use crate::domain::{Codec, ContentCoding};

pub(super) fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::Raw => 0,
        Codec::F32 => 1,
        Codec::Zstd => 2,
    }
}

pub(super) fn codec_of(number: u8) -> Option<Codec> {
    match number {
        0 => Some(Codec::Raw),
        1 => Some(Codec::F32),
        2 => Some(Codec::Zstd),
        _ => None,
    }
}

pub(super) fn coding_number(coding: ContentCoding) -> u8 {
    match coding {
        ContentCoding::Identity => 0,
        ContentCoding::Gzip => 1,
        ContentCoding::Deflate => 2,
        ContentCoding::Brotli => 3,
        ContentCoding::Zstd => 4,
        ContentCoding::Compress => 5,
    }
}

pub(super) fn coding_of(number: u8) -> Option<ContentCoding> {
    ContentCoding::ALL.into_iter().find(|&coding| coding_number(coding) == number)
}
