# How FAISS is compiled. CMake reads it as a toolchain file, which is the only file of ours that it reads: `.cargo/config.toml`
# names it.

set(FAISS_ENABLE_EXTRAS OFF CACHE BOOL "")
set(CMAKE_PROJECT_faiss_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/faiss_sources.cmake")
