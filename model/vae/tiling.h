// A codec that works on overlapping tiles, for pictures whose decoding needs more memory than there is. A
// tile sees itself alone, so colours shift a little from tile to tile; where they overlap the tiles pass into
// each other.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/latent_codec.h"

namespace vkflux {

/// In cells of the latent.
struct Tiling {
  int64_t rows = 0, columns = 0;  // of a tile; 0: one tile for all
  double overlap = 0.25;          // of neighbours, as a share of the tile

  bool on() const { return rows > 0 || columns > 0; }
  bool operator==(const Tiling&) const = default;
};

enum class TilingWish { when_needed, always, never };

/// Where tiles of `tile` cells begin on an axis of `cells` cells, with at least `overlap` of a tile between
/// neighbours: evenly apart, and the last ends with the axis.
std::vector<int64_t> tile_starts(int64_t cells, int64_t tile, double overlap);

/// The same codec in tiles. factor: pixels of a cell's side.
std::shared_ptr<LatentCodec> tiled(std::shared_ptr<LatentCodec> codec, int64_t factor, const Tiling& tiling);

}  // namespace vkflux
