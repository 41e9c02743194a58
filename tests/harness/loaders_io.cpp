// Safetensors, their names and indices, JSON, pictures, text.
#include <zlib.h>

#include <filesystem>
#include <map>
#include <numeric>
#include <stdexcept>

#include "app/picture_settings.h"
#include "autograd/packed.h"
#include "model/io/hugging_face.h"
#include "model/io/json.h"
#include "model/io/names.h"
#include "model/io/picture.h"
#include "model/io/picture_file.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "model/io/text.h"
#include "model/io/values.h"
#include "tests/harness/loaders.h"
#include "tests/harness/pictures.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;
using io::FileDType;

io::TensorData tensor(const std::string& name, std::vector<int64_t> shape, FileDType dtype = FileDType::f32) {
  const auto count = std::accumulate(shape.begin(), shape.end(), size_t{1},
                                     [](size_t n, int64_t d) { return n * static_cast<size_t>(d); });
  std::vector<std::byte> bytes(count * io::size_of(dtype));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 61);
  return {name, dtype, std::move(shape), std::move(bytes)};
}

std::string safetensors_bytes(const std::vector<io::TensorData>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  const TempFolder folder;
  io::write_safetensors(folder.file("x.safetensors"), tensors, metadata);
  return io::read_file(folder.file("x.safetensors"));
}

std::vector<std::string> safetensors_corpus() {
  return {safetensors_bytes({tensor("a", {2, 3}), tensor("b", {}), tensor("c.weight", {4}, FileDType::bf16),
                             tensor("d", {0, 5}), tensor("ids", {3}, FileDType::i64),
                             tensor("f8", {2, 2}, FileDType::f8_e4m3), tensor("half", {5}, FileDType::f16)},
                            {{"format", "pt"}, {"note", "two"}}),
          safetensors_bytes({})};
}

std::vector<std::string> flux_corpus() {
  return {safetensors_bytes({tensor("img_in.weight", {4, 2}),
                             tensor("double_blocks.0.img_attn.qkv.weight", {6, 2}),
                             tensor("double_blocks.0.img_attn.norm.query_norm.scale", {2}),
                             tensor("single_blocks.0.linear1.bias", {8})}),
          safetensors_bytes({tensor("transformer_blocks.0.attn.to_q.weight", {2, 2}),
                             tensor("transformer_blocks.0.attn.to_k.weight", {2, 2}),
                             tensor("transformer_blocks.0.attn.to_v.weight", {2, 2}),
                             tensor("norm_out.linear.bias", {4}), tensor("proj_out.bias", {3})})};
}

void use(const io::TensorSource& file) {
  for (const auto& [name, info] : file.tensors()) {
    file.read_bytes(name);
  }
}

void use_safetensors(const std::string& path) {
  const io::SafetensorsFile file(path);
  for (const auto& [name, info] : file.tensors()) {
    const auto bytes = file.read_bytes(name);
    if (static_cast<size_t>(info.numel()) * io::size_of(info.dtype) != bytes.size())
      throw std::logic_error(name);
    if (is_float(info.dtype)) file.read_f32(name);
    if (info.dtype == FileDType::i32) file.read_i32(name);
  }
}

void use_names(const std::string& path) {
  const auto file = io::open_tensors(path);
  const io::NamedTensors named(*file, io::flux1_names());
  named.count("double_blocks.");
  for (const std::string& name : named.names()) {
    named.shape(name);
    if (named.dtype(name) == FileDType::f32) named.read_f32(name);
  }
  named.check({{"img_in.weight", {4, 2}}, {"double_blocks.0.img_attn.qkv.weight", {6, 2}}});
}

std::vector<std::string> files(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  for (const std::string& name : names) out.push_back(io::read_file(VKFLUX_SOURCE_DIR "/tests/data/" + name));
  return out;
}

// Every weight as its values, and as a device would hold it.
void use_values(const std::string& path) {
  const auto file = io::open_tensors(path);
  const io::NamedTensors named(*file, io::flux1_names());
  for (const std::string& name : named.names()) {
    if (!io::is_float(named.dtype(name))) continue;
    const std::vector<float> values = named.read_f32(name);
    const DType type = io::device_type(named.dtype(name));
    if (!named.packs(name, type)) continue;
    const std::vector<int64_t>& shape = named.shape(name);
    const Shape s{shape[0], static_cast<int64_t>(values.size()) / shape[0]};
    std::vector<std::byte> rows(static_cast<size_t>(s[0]) * row_bytes(type, s[1]));
    named.read_packed(name, type, 0, rows);
    if (decode_rows(type, rows, s) != values) throw std::logic_error(name);
  }
}

uint32_t big_endian(const std::string& bytes, size_t at) {
  uint32_t v = 0;
  for (size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(bytes[at + i]);
  return v;
}

void repair_png(std::string& bytes) {
  for (size_t at = 8; at + 12 <= bytes.size();) {
    const size_t length = big_endian(bytes, at);
    if (length > bytes.size() - at - 12) return;
    const auto crc = static_cast<uint32_t>(
        ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + at + 4), static_cast<uInt>(length + 4)));
    for (size_t i = 0; i < 4; ++i) bytes[at + 8 + length + i] = static_cast<char>(crc >> (24 - 8 * i));
    at += length + 12;
  }
}

std::string png_bytes(int width, int height, bool alpha) {
  io::Image8 image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 4), 255)};
  for (size_t i = 0; i < image.rgba.size(); ++i) {
    if (alpha || i % 4 != 3) image.rgba[i] = static_cast<uint8_t>(i * i);
  }
  return io::encode_png(image, {{"parameters", "a red apple"}, {"Title", "\u00e9toile"}});
}

/// JPEG and WebP with the texts that we write, and with those of ComfyUI.
std::vector<std::string> written_pictures() {
  const io::PngText texts{{"parameters", "a cat, \u00e9toile\nSteps: 3"}, {"vkflux", R"({"steps": 3})"}};
  std::vector<std::string> out;
  for (const auto format : {io::PictureFormat::jpeg, io::PictureFormat::webp})
    out.push_back(io::encode_picture(flat(9, 7, 200, 30, 90), format, 80, texts));
  out.push_back(webp_of(flat(9, 7, 1, 2, 3), {{"EXIF", exif_of(3)}}));
  return out;
}

void write_shards(const std::string& folder) {
  io::write_safetensors(folder + "/m-1.safetensors", {tensor("a", {2, 3}), tensor("b", {4})});
  io::write_safetensors(folder + "/m-2.safetensors", {tensor("c", {2})});
}

}  // namespace

std::vector<LoaderCase> io_loaders() {
  const std::string index =
      R"({"metadata":{"total_size":48},"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}})";
  const std::string json =
      R"({"a":[1,2.5,-3,{"b":null,"c":[true,false]}],"text":"x\u00e9\n","deep":[[[[1]]]]})";
  LoaderCase png{"png", "x.png", {png_bytes(5, 3, true), png_bytes(8, 8, false)}, {}, repair_png};
  png.load = [](const std::string& p) { io::read_png(p); };
  LoaderCase png_text{"png_text", "x.png", {png_bytes(2, 2, false)}, {}, repair_png};
  png_text.load = [](const std::string& p) { io::read_png_text(p); };
  const auto read_picture = [](const std::string& p) { io::read_picture(p); };
  const io::Image8 small = flat(17, 9, 200, 30, 90);
  const LoaderCase jpeg{"jpeg",
                        "x.jpg",
                        {jpeg_of(small, {.exif = exif_of(6)}), jpeg_of(small, {.progressive = true}),
                         jpeg_of(small, {.cmyk = true, .profile = true})},
                        read_picture};
  const LoaderCase webp{"webp",
                        "x.webp",
                        {webp_of(small), webp_of(small, {{"ICCP", "profile"}, {"EXIF", exif_of(8)}}),
                         animated_webp({small, flat(17, 9, 1, 2, 3, 128)})},
                        read_picture};
  const std::string graph =
      R"({"3":{"class_type":"KSampler","inputs":{"seed":7,"steps":20,"positive":["6",0],"latent_image":["5",0]}},)"
      R"("6":{"class_type":"CLIPTextEncode","inputs":{"text":["9",0]}},"9":{"inputs":{"value":"a fox"}},)"
      R"("5":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":32}},)"
      R"("nodes":[{"id":3,"type":"KSampler","inputs":[{"name":"positive","link":1}],"widgets_values":[1,"",2]}],)"
      R"("links":[[1,6,0,3,1,"CONDITIONING"]]})";
  LoaderCase settings{
      "picture_settings", "x.txt", {graph, "a cat\nSteps: 3, Size: 8x8, Model: \"a, b\"", "{\"seed\": 3}"}};
  settings.load = [](const std::string& p) {
    const std::string bytes = io::read_file(p, 1 << 20);
    for (const char* keyword : {"vkflux", "parameters", "prompt", "workflow"})
      picture_settings({{keyword, bytes}});
  };
  settings.tolerant = true;
  LoaderCase metadata{"picture_text", "x.picture", written_pictures()};
  metadata.load = [](const std::string& p) { io::read_picture_text(p); };
  LoaderCase text{
      "text", "x.txt", {"red apple\r\ngr\u00FCn\n", std::string("\xFF\xFEr\0e\0\x3C\xD8\x4E\xDF", 10)}};
  text.load = [](const std::string& p) { io::split_lines(io::read_text(p, 1 << 20)); };
  return {
      {"safetensors", "x.safetensors", safetensors_corpus(), use_safetensors, repair_safetensors},
      {"names", "x.safetensors", flux_corpus(), use_names, repair_safetensors},
      {"scaled_fp8", "x.safetensors", files({"scaled_fp8/old.safetensors", "scaled_fp8/new.safetensors"}),
       use_values, repair_safetensors},
      {"gguf", "x.gguf", files({"gguf/blocks.gguf"}), use_values},
      {"index",
       "m.safetensors.index.json",
       {index},
       [](const std::string& p) { use(*io::open_tensors(p)); },
       {},
       write_shards},
      {"json", "x.json", {json, "[]"}, [](const std::string& p) { io::read_json(p); }},
      {"sorted_json",
       "x.json",
       {json, "{}"},
       [](const std::string& p) { io::parse_sorted_json(io::read_file(p, 1 << 20), p); }},
      {"hub_reference",
       "models--a--b/refs/main",
       {"0123abcd\n"},
       [](const std::string& p) {
         io::snapshot_of_folder(fs::path(p).parent_path().parent_path().string(), "");
       },
       {},
       [](const std::string& folder) {
         fs::create_directories(folder + "/models--a--b/snapshots/0123abcd");
         fs::create_directories(folder + "/models--a--b/refs");
       }},
      png,
      png_text,
      jpeg,
      webp,
      metadata,
      settings,
      text,
  };
}

}  // namespace vkflux::test
