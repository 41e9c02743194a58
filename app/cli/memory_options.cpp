#include "app/cli/memory_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/cli/numbers.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMostCells = 4096;

// N or NxM.
std::pair<int64_t, int64_t> tile_size(const std::string& text) {
  const Range<int64_t> range{1, kMostCells};
  const size_t x = text.find('x');
  if (x == std::string::npos) {
    const int64_t n = whole_number(text, range, "--vae-tile");
    return {n, n};
  }
  return {whole_number(text.substr(0, x), range, "--vae-tile"),
          whole_number(text.substr(x + 1), range, "--vae-tile")};
}

}  // namespace

uint64_t memory_size(const std::string& text, const std::string& what) {
  constexpr double kMost = 1 << 20;  // GiB
  std::string number = text;
  double unit = 1;
  const auto cut = [&](std::string_view suffix, double factor) {
    if (number.size() <= suffix.size() || !number.ends_with(suffix)) return false;
    number.resize(number.size() - suffix.size());
    unit = factor;
    return true;
  };
  cut("GiB", 1) || cut("MiB", 1.0 / 1024) || cut("G", 1) || cut("M", 1.0 / 1024);
  double gib = 0;
  try {
    gib = real_number(number, {0, kMost}, what) * unit;
  } catch (const Error&) {
    gib = 0;
  }
  constexpr double kGib = 1 << 30;
  if (!(gib * kGib >= 1)) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{} \"{}\": expected GiB, or a number with GiB or MiB: 8, 7.5GiB, 900MiB", what, text));
  }
  return static_cast<uint64_t>(std::llround(gib * kGib));
}

CLI::Option* add_vram_option(CLI::App& command, MemoryArgs& args) {
  return command
      .add_option(
          "--vram", args.vram,
          "device memory that may be used, in GiB (8), or with a unit (900MiB): weights that don't fit pass "
          "through it layer by layer; default: what the driver says is there")
      ->check(cli::parsed_by([](const std::string& text) { memory_size(text, "--vram"); }, "SIZE"));
}

void add_memory_options(CLI::App& command, MemoryArgs& args) {
  add_vram_option(command, args);
  command
      .add_option(
          "--vae-tiling", args.tiling,
          "decode and encode pictures in overlapping tiles: auto (when the memory needs it), on or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "on", "off"}));
  command
      .add_option(
          "--vae-tile", args.tile,
          "size of a tile, N or HEIGHTxWIDTH in cells of the latent (of 8 pixels; FLUX.2: 16); default: the "
          "largest that fits, 512 pixels with --vae-tiling on")
      ->check(cli::parsed_by([](const std::string& text) { tile_size(text); }, "CELLS"));
  command.add_option("--vae-overlap", args.overlap, "of neighbouring tiles, as a share of a tile")
      ->capture_default_str()
      ->transform(cli::real(0, 0.9));
  command.add_flag("--no-prompt-cache", args.no_prompt_cache,
                   "encode every prompt anew instead of keeping encoded ones in ~/.cache/vkflux/prompts");
}

uint64_t vram_of(const MemoryArgs& args) {
  return args.vram.empty() ? 0 : memory_size(args.vram, "--vram");
}

ModelOptions with_memory(ModelOptions options, const MemoryArgs& args) {
  options.tiling = args.tiling == "on"    ? TilingWish::always
                   : args.tiling == "off" ? TilingWish::never
                                          : TilingWish::when_needed;
  if (!args.tile.empty()) std::tie(options.tile.rows, options.tile.columns) = tile_size(args.tile);
  options.tile.overlap = args.overlap;
  options.prompt_cache = !args.no_prompt_cache;
  return options;
}

}  // namespace vkflux
