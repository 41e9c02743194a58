// Checkpoints of several files: indices, folders, and what is refused.
#include <gtest/gtest.h>

#include <filesystem>

#include "model/io/safetensors.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

class IoCheckpoint : public ::testing::Test {
 protected:
  void shard(const std::string& name, const std::vector<std::string>& tensors, float value) {
    std::vector<TensorData> data;
    const std::vector<float> values{value, value + 1};
    for (const std::string& t : tensors) data.push_back(tensor_data(t, {2}, values));
    fs::create_directories(fs::path(folder_.file(name)).parent_path());
    write_safetensors(folder_.file(name), data, {{"shard", name}});
  }
  std::string index(const std::string& weight_map) {
    atomic_write(index_, "{\"metadata\":{},\"weight_map\":" + weight_map + "}");
    return index_;
  }
  void refused(const std::string& weight_map, const std::vector<std::string>& words,
               ErrorCode code = ErrorCode::format) {
    SCOPED_TRACE(weight_map);
    index(weight_map);
    expect_error(code, words, [&] { open_tensors(index_); });
  }

  test::TempFolder folder_;
  const std::string index_ = folder_.file("model.safetensors.index.json");
};

TEST_F(IoCheckpoint, ShardsAreOneSet) {
  shard("m-1.safetensors", {"a", "b"}, 1);
  shard("sub/m-2.safetensors", {"c"}, 5);
  index(R"({"a":"m-1.safetensors","b":"./m-1.safetensors","c":"sub/m-2.safetensors"})");
  for (const std::string& path : {index_, folder_.path()}) {
    const auto c = open_tensors(path);
    EXPECT_EQ(c->tensors().size(), 3u);
    EXPECT_EQ(c->read_f32("b"), (std::vector<float>{1, 2}));
    EXPECT_EQ(c->read_f32("c"), (std::vector<float>{5, 6}));
    float second = 0;
    c->read(c->info("c"), 4, std::as_writable_bytes(std::span(&second, 1)));
    EXPECT_EQ(second, 6);
    EXPECT_TRUE(c->warnings().empty());
    expect_error(ErrorCode::format, {path, "tensor d is missing"}, [&] { c->info("d"); });
  }
}

TEST_F(IoCheckpoint, TensorsThatTheIndexDoesntListAreLeftOut) {
  shard("m-1.safetensors", {"a", "extra"}, 1);
  const auto c = open_tensors(index(R"({"a":"m-1.safetensors"})"));
  EXPECT_FALSE(c->has("extra"));
  ASSERT_EQ(c->warnings().size(), 1u);
  EXPECT_NE(c->warnings()[0].find("m-1.safetensors"), std::string::npos);
}

TEST_F(IoCheckpoint, RefusesBadIndices) {
  shard("m-1.safetensors", {"a", "b"}, 1);
  shard("m-2.safetensors", {"b", "c"}, 1);
  const std::string absolute = folder_.file("m-1.safetensors");
  refused("{\"a\":\"" + absolute + "\"}", {index_, "tensor a", "leaves the folder"});
  refused(R"({"a":"../m-1.safetensors"})", {index_, "tensor a", "leaves the folder"});
  refused(R"({"a":"x/../../m-1.safetensors"})", {"tensor a", "leaves the folder"});
  refused(R"({"a":"x\\..\\m-1.safetensors"})", {"tensor a", "leaves the folder"});
  refused(R"({"a":""})", {"tensor a", "leaves the folder"});
  refused(R"({"a":3})", {"tensor a", "no string"});
  refused(R"({"z":"m-1.safetensors"})", {"m-1.safetensors", "tensor z is missing"});
  refused(R"({"a":"m-1.safetensors","c":"m-2.safetensors"})",
          {"tensor b", "m-1.safetensors", "m-2.safetensors"});
  refused(R"({"a":"m-1.safetensors","a":"m-2.safetensors"})", {index_, "\"a\" appears twice"});
  refused(R"({"a":"none.safetensors"})", {"none.safetensors"}, ErrorCode::io);
  refused(R"({"a":"m.bin"})", {"m.bin", "pickle"}, ErrorCode::unsupported);
  refused("{}", {index_, "empty"});
  refused("[]", {index_, "weight_map"});
  atomic_write(index_, "{}");
  expect_error(ErrorCode::format, {index_, "weight_map"}, [&] { open_tensors(index_); });
  atomic_write(index_, "[");
  expect_error(ErrorCode::format, {index_}, [&] { open_tensors(index_); });
}

TEST_F(IoCheckpoint, FindsTheFileOfAFolder) {
  shard("model.safetensors", {"m"}, 1);
  EXPECT_TRUE(open_tensors(folder_.path())->has("m"));
  shard("diffusion_pytorch_model.safetensors", {"d"}, 1);
  EXPECT_TRUE(open_tensors(folder_.path())->has("d"));
  EXPECT_EQ(open_tensors(folder_.file("model.safetensors"))->metadata().at("shard"), "model.safetensors");
}

TEST_F(IoCheckpoint, SaysWhatAFolderWithoutOneLacks) {
  expect_error(ErrorCode::io, {folder_.path(), "diffusion_pytorch_model.safetensors"},
               [&] { open_tensors(folder_.path()); });
  atomic_write(folder_.file("pytorch_model.bin"), "x");
  expect_error(ErrorCode::io, {"pytorch_model.bin", "pickle"}, [&] { open_tensors(folder_.path()); });
  expect_error(ErrorCode::io, {"nowhere"}, [&] { open_tensors(folder_.file("nowhere")); });
  expect_error(ErrorCode::io, {"File name too long"},
               [&] { open_tensors(folder_.file(std::string(5000, 'x'))); });
}

}  // namespace
}  // namespace vkflux::io
