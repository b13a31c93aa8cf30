// Included before each C++ file of llama.cpp. GCC 12 says that ldtilecfg reads 8 bytes; it reads 64. The stores to the other
// 56 are then dropped as dead in ggml_tile_config_init(), and the first tile instruction is an illegal one.
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
