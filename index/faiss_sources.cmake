# FAISS's factory and its reader refer to every kind of index, so all of FAISS is linked. What the grammar of `src/spec.rs` can
# build is optimized. The rest never runs: it is compiled without optimization, and several files at a time.
set(optimized
  Clustering.cpp Index.cpp IndexFlat.cpp IndexFlatCodes.cpp IndexHNSW.cpp IndexIVF.cpp IndexIVFFlat.cpp IndexIVFPQ.cpp
  IndexPQ.cpp IndexScalarQuantizer.cpp impl/AuxIndexStructures.cpp impl/HNSW.cpp impl/ProductQuantizer.cpp
  impl/ScalarQuantizer.cpp invlists/InvertedLists.cpp utils/Heap.cpp utils/distances.cpp utils/distances_fused/avx512.cpp
  utils/distances_fused/distances_fused.cpp utils/distances_fused/simdlib_based.cpp utils/distances_simd.cpp
  utils/partitioning.cpp utils/random.cpp utils/sorting.cpp utils/utils.cpp)
# Files that define the same names for themselves.
set(alone
  IndexFastScan.cpp IndexIVFAdditiveQuantizerFastScan.cpp IndexIVFFastScan.cpp IndexIVFPQFastScan.cpp
  IndexIVFSpectralHash.cpp IndexNSG.cpp IndexPQFastScan.cpp IndexReplicas.cpp IndexShards.cpp IndexShardsIVF.cpp
  impl/NNDescent.cpp impl/NSG.cpp)

function(compile_less)
  list(TRANSFORM optimized PREPEND "${CMAKE_SOURCE_DIR}/faiss/")
  list(TRANSFORM alone PREPEND "${CMAKE_SOURCE_DIR}/faiss/")
  target_compile_options(faiss PRIVATE -O0)
  target_compile_options(faiss_c PRIVATE -O0)
  set_target_properties(faiss faiss_c PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
  # A file with options of its own is compiled alone.
  set_source_files_properties(${optimized} TARGET_DIRECTORY faiss PROPERTIES COMPILE_OPTIONS -O3)
  set_source_files_properties(${alone} TARGET_DIRECTORY faiss PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# The targets are there at the end of FAISS's own file.
cmake_language(DEFER CALL compile_less)
