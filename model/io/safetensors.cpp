#include "model/io/safetensors.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <filesystem>

#include "model/io/safetensors_header.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

constexpr std::string_view kPickle = "a pickle file, which can run code when it is read";
constexpr std::string_view kFromPickle =
    " (python -c \"import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], "
    "weights_only=True); "
    "s.save_file({k: v.clone() for k, v in d.get('state_dict', d).items()}, sys.argv[2])\" OLD "
    "NEW.safetensors)";

// What a file that isn't safetensors is, by its name or its first bytes; empty: nothing that we know.
std::string_view other_format(const std::string& extension, std::string_view start) {
  for (const char* pickle : {".ckpt", ".pt", ".pth", ".bin", ".pkl"}) {
    if (extension == pickle) return kPickle;
  }
  if (start.starts_with("GGUF")) return "a GGUF file";
  if (extension == ".onnx") return "an ONNX file";
  if (start.starts_with("PK\x03\x04")) return kPickle;  // PyTorch's zip container
  if (start.size() > 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5 && start[2] != 0)
    return kPickle;
  return {};
}

void refuse_other_formats(const std::string& path, std::string_view start) {
  const auto what = other_format(std::filesystem::path(path).extension().string(), start);
  if (!what.empty()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: {}; it isn't read: convert it to .safetensors and use that{}", path, what,
                            what == kPickle ? kFromPickle : ""));
  }
}

// What lies in a model's place by mistake; empty: nothing that we know.
std::string_view no_weights(const std::string& path, const ReadFile& file) {
  std::string start(std::min<uint64_t>(file.size(), 32), '\0');
  file.read(0, std::as_writable_bytes(std::span(start)));
  if (start.starts_with("version https://git-lfs"))
    return "it is a Git LFS pointer in the file's place: `git lfs pull` or `hf download` brings the file";
  const size_t first = start.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && start[first] == '<')
    return "it is an HTML page in the file's place, of a login or an error: download the file anew";
  if (first != std::string::npos && start[first] == '{') return "it is JSON text, no file of weights";
  for (const std::string_view magic : {"\x89PNG", "\xff\xd8\xff", "RIFF"})
    if (start.starts_with(magic)) return "it is a picture, no file of weights";
  if (path.ends_with(".gguf")) return "it doesn't begin as a GGUF file does: damaged, or none";
  return {};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path)
    : TensorSource(path), file_((refuse_other_formats(path, {}), path)) {
  if (file_.size() < 8) bad(path, fmt::format("{} bytes are too short for a safetensors file", file_.size()));
  std::array<char, 8> start{};
  file_.read(0, std::as_writable_bytes(std::span(start)));
  const auto n = std::bit_cast<uint64_t>(start);
  if (n == 0 || n > kMaxHeader || n > file_.size() - 8) {
    refuse_other_formats(path, {start.data(), start.size()});
    const std::string_view what = no_weights(path, file_);
    if (!what.empty()) bad(path, std::string(what));
    bad(path, fmt::format("its header claims {} bytes, the file has {} and {} is the limit", n, file_.size(),
                          kMaxHeader));
  }
  std::string text(n, '\0');
  file_.read(8, std::as_writable_bytes(std::span(text)));
  data_start_ = 8 + n;
  SafetensorsHeader header = parse_safetensors_header(text, path, file_.size() - data_start_);
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

void SafetensorsFile::read_range(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  file_.read(data_start_ + t.begin + offset, out);
}

}  // namespace vkflux::io
