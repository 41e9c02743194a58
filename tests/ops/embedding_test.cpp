#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

// Ids in [0, rows) with repetitions; some rows stay unused.
std::vector<int32_t> some_ids(int64_t count, int64_t rows) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * i * 7 + 3) % rows));
  return ids;
}

Host gathered(const Host& table, const std::vector<int32_t>& ids, const Shape& shape) {
  const size_t c = static_cast<size_t>(table.shape[1]);
  Host y{shape, {}, true};
  for (int32_t id : ids) {
    for (size_t i = 0; i < c; ++i) y.data.push_back(table[static_cast<size_t>(id) * c + i]);
  }
  return y;
}

struct Case {
  int64_t rows, cols;
  Shape ids;
};

const Case kCases[] = {{11, 8, {2, 7}}, {5, 3, {13}}, {1, 1, {4}}, {300, 20, {1, 33}}, {4, 64, {130}}};

TEST(Embedding, GathersAndScattersRows) {
  for (const Case& c : kCases) {
    const std::vector<int32_t> ids = some_ids(c.ids.numel(), c.rows);
    Shape shape = c.ids;
    shape.push_back(c.cols);
    check_op(
        "embedding", {random({c.rows, c.cols}, 1)},
        [&](const auto& t) {
          return std::vector{
              op::embedding(t[0], Tensor::from(device(), std::span<const int32_t>(ids), c.ids))};
        },
        [&](const auto& h) { return std::vector{gathered(h[0], ids, shape)}; });
  }
}

TEST(Embedding, SixteenBitTables) {
  for (DType type : {DType::f16, DType::bf16}) {
    for (int64_t cols : {8, 4, 3, 1}) {
      const Host table = random({7, cols}, 5);
      const std::vector<float> values(table.data.begin(), table.data.end());
      Host rounded = table;
      for (double& x : rounded.data) {
        const float f = static_cast<float>(x);
        x = static_cast<double>(type == DType::f16 ? from_f16(to_f16(f)) : from_bf16(to_bf16(f)));
      }
      const std::vector<int32_t> ids = some_ids(9, 7);
      const Tensor y = op::embedding(Tensor::from(device(), std::span<const float>(values), {7, cols}, type),
                                     Tensor::from(device(), std::span<const int32_t>(ids), {9}));
      EXPECT_EQ(error_of(y.to_host(), gathered(rounded, ids, {9, cols}).data), 0)
          << name(type) << " " << cols;
    }
  }
}

TEST(GatherRows, RepeatedRowsAddUp) {
  const std::vector<int32_t> ids{2, 0, 2, 2, 4};
  check_op(
      "gather_rows", {random({5, 6}, 1)},
      [&](const auto& t) {
        return std::vector{op::gather_rows(t[0], Tensor::from(device(), std::span<const int32_t>(ids), {5}))};
      },
      [&](const auto& h) {
        return std::vector{gathered(h[0], ids, {5, 6})};
      });
}

TEST(Embedding, RejectsOtherTypes) {
  const Tensor table = Tensor::zeros(device(), {4, 4});
  EXPECT_THROW(op::embedding(table, Tensor::zeros(device(), {2})), Error);
  EXPECT_THROW(op::gather_rows(table.slice(0, 0, 1).view({4}), Tensor::zeros(device(), {2}, DType::i32)),
               Error);
  EXPECT_EQ(op::embedding(table, Tensor::zeros(device(), {0}, DType::i32)).numel(), 0);
}

// A table of more rows than a binding has room for is read in parts.
TEST(Embedding, LargerThanABinding) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor table = op::cast(op::normal(device(), {900, 24}, 1, 3), type);
    const std::vector<int32_t> host{0, 899, 127, 128, 5, 640, 641, 899, 300};
    const Tensor ids = Tensor::from(device(), std::span<const int32_t>(host), {9});
    const std::vector<float> whole = op::embedding(table, ids).to_host();
    device().set_limits({.binding = 16 << 10});
    const std::vector<float> parts = op::embedding(table, ids).to_host();
    device().set_limits({});
    EXPECT_EQ(parts, whole);
  }
}

}  // namespace
}  // namespace vkflux::test
