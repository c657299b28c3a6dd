//! What the crate `faiss` does not offer: searches of one index by several threads, and the number of OpenMP's threads.
#![expect(unsafe_code, reason = "FAISS is C++")]

use std::ffi::{CStr, c_int};

use faiss::index::IndexImpl;

#[link(name = "gomp")]
unsafe extern "C" {
    fn omp_set_num_threads(threads: c_int);
}

/// Lets FAISS use so many threads for what the calling thread asks of it.
pub(crate) fn set_threads(threads: usize) {
    let threads = c_int::try_from(threads.max(1)).unwrap_or(c_int::MAX);
    // SAFETY: it sets a variable of the calling thread.
    unsafe { omp_set_num_threads(threads) };
}

/// Searches an index; `Err` is what FAISS says. Distances and rows are one list of `k` after the other; -1 is no row.
///
/// # Panics
/// If a length does not fit.
pub(crate) fn search(index: &Unchanged, queries: &[f32], dim: usize, k: usize) -> Result<Vec<i64>, String> {
    assert!(dim > 0 && k > 0 && queries.len().is_multiple_of(dim), "whole queries");
    let count = queries.len() / dim;
    let (mut distances, mut rows) = (vec![0.0_f32; count * k], vec![-1_i64; count * k]);
    // SAFETY: the lengths passed to FAISS are those of the arrays behind the pointers. FAISS's searches only read the index
    // ("Threads and asynchronous calls" in its wiki), which does not change: `Unchanged` has no method that changes it.
    let code = unsafe {
        faiss_sys::faiss_Index_search(
            index.0.inner_ptr(),
            count as i64,
            queries.as_ptr(),
            k as i64,
            distances.as_mut_ptr(),
            rows.as_mut_ptr(),
        )
    };
    if code == 0 {
        return Ok(rows);
    }
    // SAFETY: FAISS keeps the message of the thread's last error until its next one.
    let message = unsafe {
        let message = faiss_sys::faiss_get_last_error();
        if message.is_null() { None } else { Some(CStr::from_ptr(message).to_string_lossy().into_owned()) }
    };
    Err(message.unwrap_or_else(|| format!("code {code}")))
}

/// An index of FAISS that is complete: it can be searched, by any number of threads, and nothing else. To change one that
/// is mapped would end the process.
pub(crate) struct Unchanged(IndexImpl);

impl Unchanged {
    /// Takes an index that has no other owner.
    pub(crate) fn new(index: IndexImpl) -> Unchanged {
        Unchanged(index)
    }
}
