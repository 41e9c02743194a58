#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>

#include "autograd/ops.h"
#include "autograd/ops/attention_forms.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

struct Case {
  int64_t batch, heads, nq, nk, d;
  std::vector<uint8_t> mask = {};  // [batch, nk]
  bool causal = false, bias = false;
  float scale = 0;
  int64_t value_dim = 0;  // 0: d
  int64_t dv() const { return value_dim ? value_dim : d; }
};

// inputs: q, k, v, maybe bias
std::vector<Host> reference(const Case& c, const std::vector<Host>& in) {
  const auto u = [](int64_t x) { return static_cast<size_t>(x); };
  const size_t nq = u(c.nq), nk = u(c.nk), d = u(c.d), dv = u(c.dv()), heads = u(c.heads);
  const double scale = c.scale != 0 ? static_cast<double>(c.scale) : 1 / std::sqrt(static_cast<double>(c.d));
  Host o{{c.batch, c.heads, c.nq, c.dv()}, std::vector<double>(u(c.batch * c.heads * c.nq * c.dv())), true};
  std::vector<double> score(nk);
  for (size_t z = 0; z < u(c.batch) * heads; ++z) {
    for (size_t i = 0; i < nq; ++i) {
      double best = -INFINITY, sum = 0;
      for (size_t j = 0; j < nk; ++j) {
        const bool kept = (c.mask.empty() || c.mask[z / heads * nk + j]) && (!c.causal || j + nq <= i + nk);
        double s = 0;
        for (size_t e = 0; e < d; ++e) s += in[0][(z * nq + i) * d + e] * in[1][(z * nk + j) * d + e];
        score[j] = kept ? s * scale + (c.bias ? in[3][(z % heads * nq + i) * nk + j] : 0) : -INFINITY;
        best = std::max(best, score[j]);
      }
      if (best == -INFINITY) continue;
      for (double& s : score) sum += s = std::exp(s - best);
      for (size_t j = 0; j < nk; ++j) {
        for (size_t e = 0; e < dv; ++e)
          o[(z * nq + i) * dv + e] += score[j] / sum * in[2][(z * nk + j) * dv + e];
      }
    }
  }
  return {o};
}

struct FormCase {
  std::string_view form, products;  // of attention; of the matrix products in it
};
constexpr FormCase kForms[] = {
    {"composed", "simd"}, {"composed", "gpu"}, {"flash", "gpu"}, {"panels", "simd"}};

/// Whether a form is made for such calls; elsewhere asking for it is an error.
bool takes(std::string_view form, bool causal, bool bias) {
  if (form == "flash") return !bias;
  if (form == "panels") return !bias && !causal && device().caps().simd();
  return true;
}

void check(const Case& c) {
  std::vector<Host> in{random({c.batch, c.heads, c.nq, c.d}, 1), random({c.batch, c.heads, c.nk, c.d}, 2),
                       random({c.batch, c.heads, c.nk, c.dv()}, 3)};
  if (c.bias) in.push_back(random({c.heads, c.nq, c.nk}, 4));
  op::AttentionOptions options;
  options.scale = c.scale;
  options.causal = c.causal;
  if (!c.mask.empty())
    options.key_mask = Tensor::from(device(), std::span<const uint8_t>(c.mask), {c.batch, c.nk});
  for (const FormCase& f : kForms) {
    if (!takes(f.form, c.causal, c.bias)) continue;
    const VariantOverride form("attention", std::string(f.form)),
        force("matmul", std::string(f.products), VariantOverride::Where::it_fits);
    CheckOptions check_options;
    check_options.max_probes = 6;
    check_op(
        fmt::format("attention B{} H{} Nq{} Nk{} D{} {} {}", c.batch, c.heads, c.nq, c.nk, c.d, f.form,
                    f.products),
        in,
        [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
          op::AttentionOptions o = options;
          if (t.size() > 3) o.bias = t[3];
          return {op::attention(t[0], t[1], t[2], o)};
        },
        [&](const std::vector<Host>& h) { return reference(c, h); }, check_options);
  }
}

// A form is what its name says, and nobody gets another one for it.
TEST(Attention, FormsRunTheirKernels) {
  Device& d = device();
  const std::pair<std::string_view, const char*> kernels[] = {{"composed", "attention_softmax"},
                                                              {"flash", "flash_attention:"},
                                                              {"panels", "attention_panel_values:"}};
  const Tensor x = upload(random({1, 2, 66, 16}, 1));
  for (const auto& [form, own] : kernels) {
    if (!takes(form, false, false)) continue;
    const VariantOverride force("attention", std::string(form));
    const auto ran = kernels_of(d, [&] { op::attention(x, x, x); });
    for (const auto& [other, kernel] : kernels) {
      const bool there =
          std::any_of(ran.begin(), ran.end(),
                      [&, k = std::string_view(kernel)](const auto& n) { return n.starts_with(k); });
      EXPECT_EQ(there, other == form) << form << " ran " << fmt::format("{}", fmt::join(ran, ", "));
    }
    op::AttentionOptions causal;
    causal.causal = true;
    if (!takes(form, true, false)) {
      EXPECT_THROW(op::attention(x, x, x, causal), Error);
    }
    op::AttentionOptions biased;
    biased.bias = Tensor::zeros(d, {2, 66, 66});
    if (!takes(form, false, true)) {
      EXPECT_THROW(op::attention(x, x, x, biased), Error);
    }
  }
}

TEST(Attention, Shapes) {
  check({1, 1, 1, 1, 8});
  check({2, 3, 5, 7, 16});
  check({1, 2, 33, 33, 64});
  check({1, 1, 9, 70, 128});
  check({1, 2, 6, 6, 32, {}, false, false, 1.0f});
  check({2, 3, 24, 24, 64});
  check({1, 1, 3, 1, 4});
  check({1, 1, 5, 9, 132});
}

TEST(Attention, OtherHeadSizes) {
  check({2, 1, 3, 5, 8, {}, false, false, 0, 12});            // values wider than keys
  check({1, 2, 5, 3, 16, {1, 0, 1}, false, false, 0.3f, 4});  // narrower
  check({1, 1, 3, 4, 6, {}, true, false, 0, 5});              // no multiples of 4
  check({1, 1, 2, 3, 7, {}, false, true, 0, 0});
}

TEST(Attention, KeyMask) {
  check({2, 2, 4, 9, 16, {1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, false, false, 0.25f});
  check({2, 1, 3, 4, 8, {0, 0, 0, 0, 1, 0, 1, 1}});  // no key left in the first batch: zeros
}

TEST(Attention, Causal) {
  check({1, 2, 13, 13, 8, {}, true});
  check({1, 1, 4, 11, 12, {}, true});
  check({1, 1, 7, 5, 8, {}, true});  // the first rows see no key
}

TEST(Attention, Bias) {
  check({2, 2, 5, 7, 8, {}, false, true});
  check({1, 3, 12, 16, 16, {}, false, true, 1.0f});
  check({2, 1, 6, 6, 8, {1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1}, true, true});
}

TEST(Attention, LargeScoresStayFinite) {
  Device& d = device();
  const Tensor q = Tensor::full(d, {1, 1, 4, 8}, 40.0f), v = upload(random({1, 1, 6, 8}, 5));
  for (const FormCase& f : kForms) {
    if (!takes(f.form, false, false)) continue;
    const VariantOverride form("attention", std::string(f.form)),
        force("matmul", std::string(f.products), VariantOverride::Where::it_fits);
    for (float x : op::attention(q, Tensor::full(d, {1, 1, 6, 8}, 40.0f), v).to_host())
      EXPECT_TRUE(std::isfinite(x)) << f.form;
  }
}

TEST(Attention, NoKeysAtAll) {
  Device& d = device();
  const Tensor o = op::attention(Tensor::full(d, {1, 2, 3, 8}, 1), Tensor::zeros(d, {1, 2, 0, 8}),
                                 Tensor::zeros(d, {1, 2, 0, 8}));
  EXPECT_EQ(o.to_host(), std::vector<float>(48, 0.0f));
}

// Scores that exceed the scratch bound are made slab by slab: the same as attention over parts of the
// queries.
TEST(Attention, SlabsMatchParts) {
  const int64_t n = 2200, part = 550, d = 4;
  const Tensor q = upload(random({1, 1, n, d}, 6)), k = upload(random({1, 1, n, d}, 7)),
               v = upload(random({1, 1, n, d}, 8)), dy = upload(random({1, 1, n, d}, 9));
  const auto run = [&](int64_t begin, int64_t count) {
    const Tensor x =
        Tensor::from(device(),
                     std::span<const float>(q.to_host())
                         .subspan(static_cast<size_t>(begin * d), static_cast<size_t>(count * d)),
                     {1, 1, count, d});
    const Tensor seed =
        Tensor::from(device(),
                     std::span<const float>(dy.to_host())
                         .subspan(static_cast<size_t>(begin * d), static_cast<size_t>(count * d)),
                     {1, 1, count, d});
    Tape tape;
    for (const Tensor* t : {&x, &k, &v}) tape.watch(*t);
    Tensor o;
    {
      const auto scope = tape.record();
      o = op::attention(x, k, v);
    }
    const Grads g = tape.backward(o, seed);
    return std::array{o.to_host(), g.of(x).to_host(), g.of(k).to_host(), g.of(v).to_host()};
  };
  for (const char* form : {"composed", "panels"}) {
    const VariantOverride force("attention", form);
    const auto whole = run(0, n);
    std::array<std::vector<double>, 4> want;
    want[2].resize(whole[2].size());
    want[3].resize(whole[3].size());
    for (int64_t begin = 0; begin < n; begin += part) {
      const auto r = run(begin, part);
      for (size_t i : {0u, 1u}) want[i].insert(want[i].end(), r[i].begin(), r[i].end());
      for (size_t i : {2u, 3u}) {
        for (size_t j = 0; j < r[i].size(); ++j) want[i][j] += static_cast<double>(r[i][j]);
      }
    }
    for (size_t i = 0; i < 4; ++i) EXPECT_LE(error_of(whole[i], want[i]), 2e-5) << form << i;
  }
}

// Result and gradients of q, k, v in one form.
std::array<std::vector<float>, 4> results(const char* form, const Case& c, uint64_t seed = 20) {
  const Shape queries{c.batch, c.heads, c.nq, c.d}, keys{c.batch, c.heads, c.nk, c.d};
  const Tensor q = upload(random(queries, seed)), k = upload(random(keys, seed + 1)),
               v = upload(random(keys, seed + 2)), dy = upload(random(queries, seed + 3));
  op::AttentionOptions options;
  options.causal = c.causal;
  if (!c.mask.empty())
    options.key_mask = Tensor::from(device(), std::span<const uint8_t>(c.mask), {c.batch, c.nk});
  const VariantOverride force("attention", form);
  Tape tape;
  for (const Tensor* t : {&q, &k, &v}) tape.watch(*t);
  Tensor o;
  {
    const auto scope = tape.record();
    o = op::attention(q, k, v, options);
  }
  const Grads g = tape.backward(o, dy);
  return {o.to_host(), g.of(q).to_host(), g.of(k).to_host(), g.of(v).to_host()};
}

std::vector<uint8_t> every_third_dropped(int64_t n) {
  std::vector<uint8_t> mask(static_cast<size_t>(n));
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 1;
  return mask;
}

// Several tiles of queries and of keys, every head size of the flash form's tables.
TEST(Attention, FlashMatchesComposed) {
  const Case cases[] = {{1, 2, 70, 131, 64},
                        {1, 1, 131, 67, 24, every_third_dropped(67), true},
                        {2, 1, 65, 97, 40, every_third_dropped(2 * 97)},
                        {1, 1, 97, 150, 128, {}, true},
                        {1, 1, 37, 66, 196, every_third_dropped(66), true}};
  Device& d = device();
  const DeviceClass actual = d.device_class();
  d.set_device_class(DeviceClass::nvidia);  // the cases above have the tiles of the other classes
  for (const Case& c : cases) {
    const auto got = results("flash", c);
    EXPECT_EQ(got, results("flash", c)) << "two runs differ";
    const VariantOverride products("matmul", "simd", VariantOverride::Where::it_fits);
    const auto want = results("composed", c);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_LE(error_of(got[i], {want[i].begin(), want[i].end()}), 2e-5)
          << "result " << i << " Nq " << c.nq << " Nk " << c.nk << " D " << c.d;
    }
  }
  d.set_device_class(actual);
}

// Several tiles of queries and of keys, and panels that end within a tile.
TEST(Attention, PanelsMatchComposed) {
  for (const Case& c : {Case{1, 2, 70, 131, 64}, Case{2, 1, 65, 97, 40, every_third_dropped(2 * 97)},
                        Case{1, 1, 129, 66, 132, every_third_dropped(66)}}) {
    const auto got = results("panels", c), want = results("composed", c);
    EXPECT_EQ(got, results("panels", c)) << "two runs differ";
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_LE(error_of(got[i], {want[i].begin(), want[i].end()}), 2e-5)
          << "result " << i << " Nq " << c.nq << " Nk " << c.nk << " D " << c.d;
    }
  }
}

// Cooperative matrices where the device has them and heads are whole ones, else the composed form.
std::string form_in_f16(int64_t d) {
  return device().kernels().available("flash_attention_coop", "f16") && d % 16 == 0 ? "coop" : "composed";
}

// The results are those of factors in f16, within the rounding of the weights.
TEST(Attention, FactorsInF16) {
  const Case cases[] = {{1, 2, 70, 131, 16},
                        {1, 1, 1, 1, 16},
                        {2, 1, 65, 97, 16, every_third_dropped(2 * 97)},
                        {1, 1, 3, 33, 16, std::vector<uint8_t>(33, 0)},     // no key left: zeros
                        {1, 1, 40, 35, 16, every_third_dropped(35), true},  // the first rows see no key
                        {1, 1, 9, 40, 64},
                        {1, 1, 67, 70, 128},
                        {1, 1, 9, 9, 20}};  // no multiple of the matrices
  for (const Case& c : cases) {
    const VariantOverride force("attention", form_in_f16(c.d));
    const Shape queries{c.batch, c.heads, c.nq, c.d}, keys{c.batch, c.heads, c.nk, c.d};
    const std::vector<Host> in{random(queries, 30), random(keys, 31), random(keys, 32)};
    op::AttentionOptions options;
    options.f16 = true;
    options.causal = c.causal;
    if (!c.mask.empty())
      options.key_mask = Tensor::from(device(), std::span<const uint8_t>(c.mask), {c.batch, c.nk});
    const Tensor q = upload(in[0]), k = upload(in[1]), v = upload(in[2]);
    const std::vector<float> got = op::attention(q, k, v, options).to_host();
    EXPECT_LE(error_of(got, reference(c, in)[0].data), 2e-3)
        << "Nq " << c.nq << " Nk " << c.nk << " D " << c.d;
    EXPECT_EQ(got, op::attention(q, k, v, options).to_host()) << "two runs differ";
  }
}

TEST(Attention, FactorsInF16HaveGradients) {
  const VariantOverride force("attention", form_in_f16(16));
  CheckOptions options;
  options.tolerance = 2e-3, options.grad_tolerance = 5e-3, options.max_probes = 6;
  const Case c{1, 2, 33, 41, 16, every_third_dropped(41)};
  op::AttentionOptions o;
  o.f16 = true;
  o.key_mask = Tensor::from(device(), std::span<const uint8_t>(c.mask), {c.batch, c.nk});
  check_op(
      "attention f16", {random({1, 2, 33, 16}, 1), random({1, 2, 41, 16}, 2), random({1, 2, 41, 16}, 3)},
      [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
        return {op::attention(t[0], t[1], t[2], o)};
      },
      [&](const std::vector<Host>& h) { return reference(c, h); }, options);
}

// Values beyond the range of f16, and scores whose weights would overflow without the maximum.
TEST(Attention, FactorsInF16StayFinite) {
  Device& d = device();
  op::AttentionOptions o;
  o.f16 = true;
  const VariantOverride force("attention", form_in_f16(16));
  const Tensor q = Tensor::full(d, {1, 1, 4, 16}, 300.0f), v = Tensor::full(d, {1, 1, 40, 16}, 1e6f);
  for (const float x : op::attention(q, Tensor::full(d, {1, 1, 40, 16}, 300.0f), v, o).to_host())
    EXPECT_TRUE(std::isfinite(x) && x > 6e4f) << x;
}

AttentionProblem tiny_problem(Device& d) {
  AttentionProblem p;
  p.q = p.k = p.v = Tensor::zeros(d, {1, 1, 2, 64});
  p.batch = p.heads = 1, p.nq = p.nk = 2, p.d = 64;
  return p;
}

TEST(Attention, F16IsForMatrixUnits) {
  Device& d = device();
  AttentionProblem p = tiny_problem(d);
  const DeviceClass actual = d.device_class();
  const bool there = d.kernels().available("flash_attention_coop", "f16");
  for (const DeviceClass c : {DeviceClass::cpu, DeviceClass::nvidia, DeviceClass::amd, DeviceClass::intel}) {
    d.set_device_class(c);
    p.f16 = false;
    EXPECT_FALSE(kCoopAttention.fits(p));
    p.f16 = true;
    EXPECT_EQ(kCoopAttention.fits(p), there && (c == DeviceClass::nvidia || c == DeviceClass::amd));
  }
  d.set_device_class(actual);
}

// Gradients that nobody wants are not made, and don't change the others.
TEST(Attention, FlashWithFewerGradients) {
  for (const int64_t d : {16, 132}) {
    const Case c{1, 1, 9, 11, d};
    const auto whole = results("flash", c);
    for (int wanted = 1; wanted < 7; ++wanted) {
      const Tensor x[] = {upload(random({1, 1, c.nq, d}, 20)), upload(random({1, 1, c.nk, d}, 21)),
                          upload(random({1, 1, c.nk, d}, 22))};
      const VariantOverride force("attention", "flash");
      Tape tape;
      for (int i = 0; i < 3; ++i) {
        if (wanted >> i & 1) tape.watch(x[i]);
      }
      Tensor o;
      {
        const auto scope = tape.record();
        o = op::attention(x[0], x[1], x[2]);
      }
      const Grads g = tape.backward(o, upload(random({1, 1, c.nq, d}, 23)));
      for (size_t i = 0; i < 3; ++i) {
        if (!(wanted >> i & 1)) continue;
        EXPECT_EQ(g.of(x[i]).to_host(), whole[i + 1]) << wanted << " " << i;
      }
    }
  }
}

TEST(Attention, FlashNeedsNoMatrixOfScores) {
  const std::unique_ptr<Device> fresh = Device::create();  // whose peak no other test has raised
  const int64_t n = 1024;
  {
    const Tensor q = Tensor::zeros(*fresh, {1, 1, n, 4});
    for (const char* form : {"flash", "composed"}) {
      const VariantOverride force("attention", form);
      const uint64_t before = fresh->pool().usage().used;
      const Tensor o = op::attention(q, q, q);
      const uint64_t grown = fresh->pool().usage().peak - before;
      EXPECT_EQ(grown < static_cast<uint64_t>(n * n), std::string_view(form) == "flash") << grown << " bytes";
      EXPECT_EQ(o.to_host(), std::vector<float>(static_cast<size_t>(n * 4), 0.0f));
    }
  }
  EXPECT_EQ(fresh->validation_messages(), 0u);
}

TEST(Attention, FlashIsForGpus) {
  Device& d = device();
  AttentionProblem p = tiny_problem(d);
  const DeviceClass actual = d.device_class();
  d.set_device_class(DeviceClass::cpu);
  EXPECT_FALSE(kFlashAttention.fits(p));
  for (const DeviceClass c :
       {DeviceClass::nvidia, DeviceClass::amd, DeviceClass::intel, DeviceClass::other}) {
    d.set_device_class(c);
    EXPECT_TRUE(kFlashAttention.fits(p));
  }
  p.d = 260;
  EXPECT_FALSE(kFlashAttention.fits(p));
  p.d = 64;
  p.bias = Tensor::zeros(d, {1, 2, 2});
  EXPECT_FALSE(kFlashAttention.fits(p));
  d.set_device_class(actual);
}

TEST(Attention, RejectsShapes) {
  Device& d = device();
  const Tensor q = Tensor::zeros(d, {1, 2, 3, 8}), k = Tensor::zeros(d, {1, 2, 5, 8});
  EXPECT_THROW(op::attention(q, Tensor::zeros(d, {1, 1, 5, 8}), Tensor::zeros(d, {1, 1, 5, 8})), Error);
  EXPECT_THROW(op::attention(q, Tensor::zeros(d, {1, 2, 5, 6}), k), Error);  // another head size than q's
  EXPECT_THROW(op::attention(q, k, Tensor::zeros(d, {1, 2, 4, 8})), Error);  // another number of values
  op::AttentionOptions o;
  o.bias = Tensor::zeros(d, {2, 3, 4});
  EXPECT_THROW(op::attention(q, k, k, o), Error);
}

}  // namespace
}  // namespace vkflux::test
