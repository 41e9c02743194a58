#include "autograd/tape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "autograd/optim.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Floats = std::vector<float>;

Tensor make(const Floats& v) {
  return Tensor::from(device(), v, Shape{static_cast<int64_t>(v.size())});
}

TEST(TapeTest, GradientsOfAllUsesAdd) {
  const Tensor x = make({1, 2, 3});
  Tape tape;
  tape.watch(x);
  Tensor y;
  {
    const auto scope = tape.record();
    y = op::add(op::mul(x, x), op::affine(x, 3));
  }
  const Grads g = tape.backward(y);
  EXPECT_EQ(g.of(x).to_host(), (Floats{5, 7, 9}));
  EXPECT_EQ(tape.size(), 0u);
}

TEST(TapeTest, NothingIsRecordedWithoutNeed) {
  const Tensor x = make({1, 2}), w = make({3, 4});
  Tape tape;
  tape.watch(w);
  op::mul(x, w);
  EXPECT_EQ(tape.size(), 0u);
  const auto scope = tape.record();
  op::mul(x, x);
  EXPECT_EQ(tape.size(), 0u);
  {
    const auto pause = Tape::pause();
    op::mul(x, w);
    EXPECT_EQ(tape.size(), 0u);
  }
  op::mul(x, w);
  EXPECT_EQ(tape.size(), 1u);
}

TEST(TapeTest, UnwantedInputsGetNone) {
  const Tensor x = make({1, 2}), w = make({3, 4});
  Tape tape;
  tape.watch(w);
  Tensor y;
  {
    const auto scope = tape.record();
    y = op::sum_all(op::mul(x, w));
  }
  const Grads g = tape.backward(y);
  EXPECT_FALSE(g.of(x).defined());
  EXPECT_EQ(g.of(w).to_host(), (Floats{1, 2}));
}

TEST(TapeTest, TheSeedScales) {
  const Tensor x = make({1, 2, 3});
  Tape tape;
  tape.watch(x);
  Tensor y;
  {
    const auto scope = tape.record();
    y = op::affine(x, 2);
  }
  EXPECT_EQ(tape.backward(y, make({1, 10, 100})).of(x).to_host(), (Floats{2, 20, 200}));
}

TEST(TapeTest, BackwardOfAConstantIsAnError) {
  const Tensor x = make({1});
  Tape tape;
  EXPECT_THROW(tape.backward(x), Error);
}

TEST(TapeTest, CollectAddsIntoDestinations) {
  const Tensor w = make({1, 2, 3, 4}), arena = Tensor::zeros(device(), Shape{128});
  const Tensor slot = arena.slice(0, 64, 4);
  for (int round = 1; round <= 2; ++round) {
    Tape tape;
    tape.watch(w);
    Tensor y;
    {
      const auto scope = tape.record();
      y = op::add(op::sum_all(op::mul(w, w)), op::sum_all(op::narrow(w, 0, 1, 2)));
    }
    Grads g;
    g.collect(w, slot, round == 1);
    tape.backward({{y, {}}}, g);
    const auto k = static_cast<float>(round);
    EXPECT_EQ(slot.to_host(), (Floats{2 * k, 5 * k, 7 * k, 8 * k}));
  }
  Floats all = arena.to_host();
  for (size_t i = 0; i < 4; ++i) all[64 + i] = 0;
  EXPECT_EQ(all, Floats(128, 0));
}

// A kernel is told to overwrite an empty place and to add to a full one; what can't add, or can't write
// there, gets memory of its own.
TEST(TapeTest, KernelsAreToldToOverwriteOrToAdd) {
  const Arena arena(device(), {{"x", Shape{4}}});
  const Tensor x = make({0, 0, 0, 0}), part = arena.flat().slice(0, 1, 4);  // starts where no binding can
  const auto run = [&](Grads& g) {
    std::string asked;
    const auto write = [&](const Tensor& memory, Store store) {
      asked += store == Store::add ? "+" : "=";
      const Tensor ones = Tensor::full(device(), {4}, 1);
      EXPECT_TRUE(memory.is_bindable());
      if (store == Store::overwrite) memory.fill_zero();
      op::accumulate(memory, ones);
    };
    Tape tape;
    tape.watch(x);
    Tensor y;
    {
      const auto scope = tape.record();
      y = op::affine(x, 1);
    }
    tape.push("writer", {y}, [&](Grads& grads) {
      grads.write_or_add(x, AddsTo::bindable, write);
      grads.write_or_add(x, AddsTo::bindable, write);
      grads.write(x, [&](const Tensor& memory) { write(memory, Store::overwrite); });
      grads.write_or_add(x, AddsTo::bindable, write);
    });
    tape.backward({{y, Tensor::zeros(device(), {4})}}, g);
    return asked;
  };
  Grads plain, collecting, unbindable;
  EXPECT_EQ(run(plain), "=+=+");
  EXPECT_EQ(plain.of(x).to_host(), Floats(4, 4));
  collecting.collect(x, arena[0]);
  EXPECT_EQ(run(collecting), "=+=+");
  EXPECT_EQ(arena[0].to_host(), Floats(4, 4));
  arena.flat().fill_zero();
  unbindable.collect(x, part);
  EXPECT_EQ(run(unbindable), "====");
  EXPECT_EQ(part.to_host(), Floats(4, 4));
  Grads unwatched;
  unwatched.write(x, [](const Tensor&) { FAIL() << "nobody wants this gradient"; });
}

// A node with two outputs: x -> (x, 2 x).
std::vector<Tensor> fork(const Tensor& x) {
  const auto outputs = [&] {
    const auto pause = Tape::pause();
    return std::vector<Tensor>{op::affine(x, 1), op::affine(x, 2)};
  }();
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("fork", outputs, [x, a = outputs[0].id(), b = outputs[1].id()](Grads& g) {
      g.add(x, op::add(g.of(a), op::affine(g.of(b), 2)));
    });
  }
  return outputs;
}

// Products write, or add, where gradients are collected, of whole weights and of parts of them; the bits
// between the slots of an arena stay zero.
TEST(TapeTest, ProductsOfCollectedWeights) {
  for (const int64_t n : {64, 37}) {
    SCOPED_TRACE(n);
    const int64_t half = n / 2;
    const auto draw = [](Shape shape, uint64_t stream) { return op::normal(device(), shape, 1, stream); };
    const Tensor x = draw({5, n}, 0), w = draw({n, n}, 1), v = draw({n, n}, 2), b = draw({n}, 3),
                 s = draw({n}, 4);
    const auto loss = [&] {
      const Tensor first = op::linear(op::layer_norm(op::linear(x, w, b), s, b, 1e-5f), w, b);
      const Tensor rows =
          op::linear(first, op::narrow(w, 0, half, n - half), op::narrow(b, 0, half, n - half));
      const Tensor columns = op::linear(op::narrow(first, 1, 0, half), op::narrow(v, 1, half, half));
      return op::add(op::sum_all(op::unary(rows, op::Unary::square)), op::sum_all(columns));
    };
    const auto gradients = [&](Grads& g) {
      Tape tape;
      for (const Tensor& t : {w, v, b, s}) tape.watch(t);
      Tensor y;
      {
        const auto scope = tape.record();
        y = loss();
      }
      tape.backward({{y, Tensor()}}, g);
    };
    Grads plain;
    gradients(plain);
    const Arena arena(device(), {{"w", w.shape()}, {"v", v.shape()}, {"b", b.shape()}, {"s", s.shape()}});
    for (int pass = 0; pass < 2; ++pass) {
      Grads g;
      size_t slot = 0;
      for (const Tensor& t : {w, v, b, s}) g.collect(t, arena[slot++], pass == 0);
      gradients(g);
    }
    size_t slot = 0, values = 0;
    for (const Tensor& t : {w, v, b, s}) {
      const Floats one = plain.of(t).to_host(), both = arena[slot++].to_host();
      double largest = 0, error = 0;
      for (size_t i = 0; i < one.size(); ++i) {
        largest = std::max(largest, std::fabs(2.0 * one[i]));
        error = std::max(error, std::fabs(2.0 * one[i] - both[i]));
      }
      EXPECT_GT(largest, 0);
      EXPECT_LE(error, 1e-5 * largest);
      values += static_cast<size_t>(std::count_if(both.begin(), both.end(), [](float f) { return f != 0; }));
    }
    const Floats all = arena.flat().to_host();
    EXPECT_EQ(static_cast<size_t>(std::count_if(all.begin(), all.end(), [](float f) { return f != 0; })),
              values);
  }
}

TEST(TapeTest, UnusedOutputsOfANodeCountAsZero) {
  for (size_t used : {0u, 1u}) {
    const Tensor x = make({1, 2});
    Tape tape;
    tape.watch(x);
    Tensor y;
    {
      const auto scope = tape.record();
      y = op::affine(fork(x)[used], 10);
    }
    const float want = used == 0 ? 10 : 20;
    EXPECT_EQ(tape.backward(y).of(x).to_host(), (Floats{want, want}));
  }
}

TEST(TapeTest, NodesThatLeadNowhereAreSkipped) {
  const Tensor x = make({1, 2});
  bool ran = false;
  Tape tape;
  tape.watch(x);
  Tensor y;
  {
    const auto scope = tape.record();
    const Tensor dead = op::affine(x, 5);
    tape.push("dead", {dead.alias()}, [&ran](Grads&) { ran = true; });
    y = op::affine(x, 2);
  }
  EXPECT_EQ(tape.backward(y).of(x).to_host(), (Floats{2, 2}));
  EXPECT_FALSE(ran);
}

TEST(TapeTest, SeveralSeedsAccumulate) {
  const Tensor x = make({1, 2});
  Tape tape;
  tape.watch(x);
  Tensor a, b;
  {
    const auto scope = tape.record();
    a = op::affine(x, 2);
    b = op::affine(a, 3);
  }
  Grads g;
  tape.backward({{a, {}}, {b, {}}}, g);
  EXPECT_EQ(g.of(x).to_host(), (Floats{8, 8}));
}

TEST(TapeTest, SlicesNeverWriteIntoASharedGradient) {
  // The gradient of `a` arrives first as the very tensor that is also the gradient of `b`.
  const Tensor x = make({1, 2, 3, 4}), z = make({5, 6, 7, 8});
  Tape tape;
  tape.watch(x);
  tape.watch(z);
  Tensor y, part;
  {
    const auto scope = tape.record();
    const Tensor a = op::affine(x, 1), b = op::affine(z, 1);
    part = op::narrow(a, 0, 0, 2);
    y = op::add(a, b);
  }
  Grads g;
  tape.backward({{y, {}}, {part, {}}}, g);
  EXPECT_EQ(g.of(x).to_host(), (Floats{2, 2, 1, 1}));
  EXPECT_EQ(g.of(z).to_host(), (Floats{1, 1, 1, 1}));
}

TEST(TapeTest, CheckpointGivesTheSameBits) {
  const Tensor x = upload(random(Shape{6, 10}, 1)), w = upload(random(Shape{6, 10}, 2)),
               v = upload(random(Shape{10}, 3));
  const auto block = [&](const std::vector<Tensor>& in) {
    const Tensor h = op::unary(op::mul(in[0], w), op::Unary::silu);
    return std::vector<Tensor>{op::add(h, v), op::mul(h, in[1])};
  };
  std::vector<Floats> plain;
  for (bool use : {false, true}) {
    const Tensor frozen = op::affine(x, 0.5f);
    Tape tape;
    for (const Tensor& t : {x, w, v}) tape.watch(t);
    Tensor y;
    {
      const auto scope = tape.record();
      std::vector<Tensor> h{op::affine(x, 2), frozen};
      for (int i = 0; i < 2; ++i) {
        h = use ? checkpoint(block, h, {w, v}) : block(h);
        h[1] = frozen;
      }
      y = op::sum_all(op::mul(h[0], x));
    }
    EXPECT_LE(tape.size(), use ? 6u : 100u);
    const Grads g = tape.backward(y);
    const std::vector<Floats> got{y.to_host(), g.of(x).to_host(), g.of(w).to_host(), g.of(v).to_host()};
    if (use) {
      EXPECT_EQ(got, plain);
    } else {
      plain = got;
    }
  }
}

TEST(TapeTest, CheckpointWithoutATapeOnlyRuns) {
  const Tensor x = make({1, 2});
  const auto out =
      checkpoint([](const auto& in) { return std::vector<Tensor>{op::affine(in[0], 2)}; }, {x}, {});
  EXPECT_EQ(out[0].to_host(), (Floats{2, 4}));
}

TEST(TapeTest, MemoryOfActivationsIsReleasedDuringBackward) {
  const Tensor x = Tensor::zeros(device(), Shape{1024});
  const uint64_t before = device().pool().usage().used;
  {
    Tape tape;
    tape.watch(x);
    Tensor y;
    {
      const auto scope = tape.record();
      y = op::sum_all(op::add(op::mul(x, x), x));
    }
    const Grads g = tape.backward(y);
    y = {};
    EXPECT_EQ(device().pool().usage().used, before + 4096);  // the gradient alone
  }
  EXPECT_EQ(device().pool().usage().used, before);
}

}  // namespace
}  // namespace vkflux::test
