// Storage formats of frozen weights. A packed tensor is a matrix [N, K] whose rows are encoded by themselves
// and start at multiples of 16 bytes, so that kernels fetch them in 128-bit texels:
//
//   f8_e4m3, f8_e5m2  one byte a value; rows padded to 16 bytes
//   q8_0              blocks of 32 int8 with an f16 scale each, in groups of up to eight blocks: the int8 of
//                     all blocks, then 16 bytes with their scales (a full group: 272 bytes, 256 values)
//   q4_k              blocks of 256 values in 144 bytes, exactly as in GGUF files
//
// Values: q8_0 w = d q. q4_k: eight sub-blocks of 32, w = d s q - dmin m with 6-bit s, m and 4-bit q.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// Columns must be a multiple of it: 1 for fp8, 32, 256; 1 for other types.
int64_t block_values(DType t);
/// Of one row on the device, padding included.
uint64_t row_bytes(DType t, int64_t columns);
/// Error invalid_argument unless `shape` is a matrix with rows of whole blocks.
void check_packed(DType t, const Shape& shape);

/// Device layout from the blocks that files hold (fp8 bytes, 34-byte Q8_0 blocks, 144-byte Q4_K blocks), and
/// back. Error invalid_argument when the number of bytes is another.
std::vector<std::byte> pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape);
std::vector<std::byte> unpack_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape);
/// Values of rows in device layout.
std::vector<float> decode_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape);

// fp8 on the host. E4M3 has no infinities, NaN 0x7f and largest value 448; E5M2 is the upper byte of an f16.
// To fp8: round to nearest even, finite values saturating; infinities become e5m2's and e4m3's NaN, NaN stays
// NaN.
float from_f8(DType t, uint8_t code);
uint8_t to_f8(DType t, float x);

}  // namespace vkflux
