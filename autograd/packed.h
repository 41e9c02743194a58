// Storage formats of frozen weights. A packed tensor is a matrix [N, K] whose rows are encoded by themselves
// and start at multiples of 16 bytes. Values are those of fp8 files and of GGUF's blocks (autograd/blocks.h),
// bit for bit; what a row holds is put in another order, so that kernels can take any 16 columns of any type
// in one way (shaders/common/packed_format.glsl):
//
//   blocks  all numbers of the row: the lower bits of each in one plane, the upper bits in a second where
//           there are; then the scales, block by block
//   fp8     a byte for every value, and one f32 scale of the whole row
//
// In a plane of b bits, four columns are the bytes of a word after a shift: word i has the columns
// [32 i / b, 32 (i + 1) / b), its byte j those with column % 4 = j, lower bits first.
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

/// Rows in device layout from what files hold (fp8 bytes, blocks), into `out`. fp8: `scale` is what the
/// values are to be multiplied with. Error invalid_argument when a number of bytes is another.
void pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape, std::span<std::byte> out,
               float scale = 1);
std::vector<std::byte> pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape,
                                 float scale = 1);
/// What files hold, from rows in device layout; scales of fp8 rows are left out.
std::vector<std::byte> unpack_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape);
/// Values of rows in device layout.
std::vector<float> decode_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape);

// fp8 on the host. E4M3 has no infinities, NaN 0x7f and largest value 448; E5M2 is the upper byte of an f16.
// To fp8: round to nearest even, finite values saturating; infinities become e5m2's and e4m3's NaN, NaN stays
// NaN.
float from_f8(DType t, uint8_t code);
uint8_t to_f8(DType t, float x);

}  // namespace vkflux
