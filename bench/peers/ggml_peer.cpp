// Times ggml on rows of `vkflux bench`, through its public interface.
//
//   ggml_peer cpu|vulkan [FOLDER_OF_BACKENDS]
//
// stdin: lines "name TAB shape TAB dtype"; stdout: the same with TAB and the median time in ms, for the rows
// it can measure: "linear" and both blocks in f32, f16, bf16, q8_0 and q4_k weights, and "attention" in f32.
//
//   c++ -std=c++17 -O2 ggml_peer.cpp -o ggml_peer -lggml -lggml-base
//
// The Vulkan backend leaves out CPU implementations unless GGML_VK_VISIBLE_DEVICES names them (0 for the
// first).
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using T = ggml_tensor*;

// Vulkan implementations may bind no more than 128 MiB at once: larger weights are used in parts of this many
// rows or columns, which every backend gets alike.
constexpr int64_t kPart = 3072;
constexpr double kLongMs = 5000;

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

ggml_type type_of(const std::string& dtype) {
  const std::pair<const char*, ggml_type> known[] = {{"f32", GGML_TYPE_F32},
                                                     {"f16", GGML_TYPE_F16},
                                                     {"bf16", GGML_TYPE_BF16},
                                                     {"q8_0", GGML_TYPE_Q8_0},
                                                     {"q4_k", GGML_TYPE_Q4_K}};
  for (const auto& [name, type] : known) {
    if (dtype == name) return type;
  }
  return GGML_TYPE_COUNT;
}

/// Constants in one backend buffer, and a graph over them.
class Work {
 public:
  explicit Work(ggml_backend_t backend) : backend_(backend) {
    const ggml_init_params params{ggml_tensor_overhead() * 4096 + ggml_graph_overhead(), nullptr, true};
    constants_ = ggml_init(params);
    graph_context_ = ggml_init(params);
  }
  ~Work() {
    if (allocator_) ggml_gallocr_free(allocator_);
    if (buffer_) ggml_backend_buffer_free(buffer_);
    ggml_free(graph_context_);
    ggml_free(constants_);
  }
  ggml_context* graph() const { return graph_context_; }

  T constant(ggml_type type, int64_t a, int64_t b = 1, int64_t c = 1) {
    const T t = ggml_new_tensor_3d(constants_, type, a, b, c);
    filled_.push_back(t);
    return t;
  }
  T weight(ggml_type type, int64_t in, int64_t out) { return constant(type, in, out); }

  /// Median of repeats over about 0.4 s, at least 2 (of long ones: 1), after one that isn't counted; 0: the
  /// backend can't.
  double median_ms(T result) {
    buffer_ = ggml_backend_alloc_ctx_tensors(constants_, backend_);
    if (!buffer_) throw std::runtime_error("no memory for the constants");
    for (const T t : filled_) fill(t);
    ggml_cgraph* g = ggml_new_graph(graph_context_);
    ggml_build_forward_expand(g, result);
    for (int i = 0; i < ggml_graph_n_nodes(g); ++i) {
      const T node = ggml_graph_node(g, i);
      if (ggml_backend_supports_op(backend_, node)) continue;
      std::fprintf(stderr, "not supported here: %s\n", ggml_op_desc(node));
      return 0;
    }
    allocator_ = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend_));
    if (!ggml_gallocr_alloc_graph(allocator_, g)) throw std::runtime_error("no memory for the graph");
    std::vector<double> taken;
    double total = 0;
    size_t least = 2;
    for (int i = 0; taken.size() < 200 && (taken.size() < least || total < 400); ++i) {
      const double start = now_ms();
      if (ggml_backend_graph_compute(backend_, g) != GGML_STATUS_SUCCESS) throw std::runtime_error("failed");
      ggml_backend_synchronize(backend_);
      const double took = now_ms() - start;
      if (i == 0) {
        if (took > kLongMs) least = 1;
        continue;
      }
      taken.push_back(took);
      total += took;
    }
    std::sort(taken.begin(), taken.end());
    return 0.5 * (taken[(taken.size() - 1) / 2] + taken[taken.size() / 2]);
  }

 private:
  static void fill(T t) {
    const int64_t n = ggml_nelements(t);
    if (t->type == GGML_TYPE_I32) {
      std::vector<int32_t> ids(static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(i);
      return ggml_backend_tensor_set(t, ids.data(), 0, ggml_nbytes(t));
    }
    std::vector<float> x(static_cast<size_t>(n));
    uint32_t state = 1;
    for (float& v : x) {
      state = state * 1664525u + 1013904223u;
      v = (static_cast<float>(state >> 8) / 8388608.0f - 1) * 0.05f;
    }
    if (t->type == GGML_TYPE_F32) return ggml_backend_tensor_set(t, x.data(), 0, ggml_nbytes(t));
    std::vector<uint8_t> coded(ggml_nbytes(t));
    ggml_quantize_chunk(t->type, x.data(), coded.data(), 0, n / t->ne[0], t->ne[0], nullptr);
    ggml_backend_tensor_set(t, coded.data(), 0, coded.size());
  }

  ggml_backend_t backend_;
  ggml_context *constants_ = nullptr, *graph_context_ = nullptr;
  ggml_backend_buffer_t buffer_ = nullptr;
  ggml_gallocr_t allocator_ = nullptr;
  std::vector<T> filled_;
};

/// softmax(q k^T / sqrt(D)) v of [D, N, H] in one op; keys and values in f16, the form that it is made for.
T flash(ggml_context* c, T q, T k, T v) {
  const float scale = 1 / std::sqrt(static_cast<float>(q->ne[0]));
  return ggml_flash_attn_ext(c, q, ggml_cast(c, k, GGML_TYPE_F16), ggml_cast(c, v, GGML_TYPE_F16), nullptr,
                             scale, 0, 0);  // [D, H, N]
}

/// The parts of FLUX.1 blocks, [width, tokens] activations.
class Flux {
 public:
  Flux(Work& work, ggml_type type, int64_t width, int64_t head_dim)
      : w_(work),
        c_(work.graph()),
        type_(type),
        width_(width),
        head_dim_(head_dim),
        heads_(width / head_dim) {
    vec_ = w_.constant(GGML_TYPE_F32, width);
  }
  T linear(T x, int64_t in, int64_t out) {
    const T y = ggml_mul_mat(c_, w_.weight(type_, in, out), x);
    return ggml_add(c_, y, w_.constant(GGML_TYPE_F32, out));
  }
  T modulation() { return linear(vec_, width_, width_); }
  T modulated(T x, T shift, T scale) {
    const T h = ggml_norm(c_, x, 1e-6f);
    return ggml_add(c_, ggml_add(c_, h, ggml_mul(c_, h, scale)), shift);
  }
  T gated(T x, T gate, T y) { return ggml_add(c_, x, ggml_mul(c_, y, gate)); }
  /// W2 gelu(W1 x) in parts of the hidden width.
  T feed_forward(T x, int64_t hidden, T sum = nullptr) {
    for (int64_t at = 0; at < hidden; at += kPart) {
      const int64_t part = std::min(kPart, hidden - at);
      const T y = ggml_mul_mat(c_, w_.weight(type_, part, width_), ggml_gelu(c_, linear(x, width_, part)));
      sum = sum ? ggml_add(c_, sum, y) : y;
    }
    return ggml_add(c_, sum, w_.constant(GGML_TYPE_F32, width_));
  }
  struct Heads {
    T q, k, v;  // [D, H, N]
  };
  Heads project(T a, int64_t tokens) {
    const auto one = [&](bool norm) {
      T h = ggml_reshape_3d(c_, linear(a, width_, width_), head_dim_, heads_, tokens);
      return norm ? ggml_mul(c_, ggml_rms_norm(c_, h, 1e-6f), w_.constant(GGML_TYPE_F32, head_dim_)) : h;
    };
    const T q = one(true), k = one(true);
    return {q, k, one(false)};
  }
  /// One rotation by the token's number stands for that by three axes: the same work.
  T attend(const Heads& h, int64_t tokens) {
    const T ids = w_.constant(GGML_TYPE_I32, tokens);
    const auto by_head = [&](T x) { return ggml_cont(c_, ggml_permute(c_, x, 0, 2, 1, 3)); };
    const auto rotated = [&](T x) { return ggml_rope(c_, x, ids, static_cast<int>(head_dim_), 0); };
    const T y = flash(c_, by_head(rotated(h.q)), by_head(rotated(h.k)), by_head(h.v));
    return ggml_reshape_2d(c_, y, width_, tokens);
  }

  T single_block(T x, int64_t tokens) {
    const T shift = modulation(), scale = modulation(), gate = modulation();
    const T a = modulated(x, shift, scale);
    const T o = attend(project(a, tokens), tokens);
    const T out = ggml_mul_mat(c_, w_.weight(type_, width_, width_), o);
    return gated(x, gate, feed_forward(a, 4 * width_, out));
  }
  /// Text and image streams with joint attention; the result is both, one after the other.
  T double_block(T txt, T img, int64_t text, int64_t image) {
    struct Stream {
      T x, mod[6];
      Heads heads;
    } streams[2] = {{txt, {}, {}}, {img, {}, {}}};
    for (int s = 0; s < 2; ++s) {
      for (T& m : streams[s].mod) m = modulation();
      streams[s].heads =
          project(modulated(streams[s].x, streams[s].mod[0], streams[s].mod[1]), s ? image : text);
    }
    const auto joined = [&](T Heads::*part) {
      return ggml_concat(c_, streams[0].heads.*part, streams[1].heads.*part, 2);
    };
    const T o = attend({joined(&Heads::q), joined(&Heads::k), joined(&Heads::v)}, text + image);
    T out[2];
    for (int s = 0; s < 2; ++s) {
      const Stream& p = streams[s];
      const T part = ggml_cont(c_, ggml_view_2d(c_, o, width_, s ? image : text, o->nb[1],
                                                s ? static_cast<size_t>(text) * o->nb[1] : 0));
      const T y = gated(p.x, p.mod[2], linear(part, width_, width_));
      out[s] = gated(y, p.mod[5], feed_forward(modulated(y, p.mod[3], p.mod[4]), 4 * width_));
    }
    return ggml_concat(c_, out[0], out[1], 1);
  }

 private:
  Work& w_;
  ggml_context* c_;
  ggml_type type_;
  int64_t width_, head_dim_, heads_;
  T vec_;
};

double measure(ggml_backend_t backend, const std::string& name, const std::string& shape, ggml_type type) {
  Work work(backend);
  ggml_context* c = work.graph();
  long long a = 0, b = 0, w = 0, d = 0;
  const char* s = shape.c_str();
  if (name == "linear" && std::sscanf(s, "M%lld N%lld K%lld", &a, &b, &w) == 3) {
    return work.median_ms(ggml_mul_mat(c, work.weight(type, w, b), work.constant(GGML_TYPE_F32, w, a)));
  }
  if (name == "attention" && std::sscanf(s, "H%lld N%lld D%lld", &a, &b, &d) == 3) {
    const T q = work.constant(GGML_TYPE_F32, d, b, a), k = work.constant(GGML_TYPE_F32, d, b, a),
            v = work.constant(GGML_TYPE_F32, d, b, a);
    return work.median_ms(flash(c, q, k, v));
  }
  const bool joint = name == "double block";
  if ((joint || name == "single block") && std::sscanf(s, "T%lld I%lld C%lld D%lld", &a, &b, &w, &d) == 4) {
    Flux flux(work, type, w, d);
    const auto stream = [&](int64_t n) { return work.constant(GGML_TYPE_F32, w, n); };
    return work.median_ms(joint ? flux.double_block(stream(a), stream(b), a, b)
                                : flux.single_block(stream(a + b), a + b));
  }
  return 0;
}

ggml_backend_t open_backend(const std::string& kind) {
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    const ggml_backend_dev_t device = ggml_backend_dev_get(i);
    const bool cpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    if (cpu != (kind == "cpu")) continue;
    std::fprintf(stderr, "ggml %s: %s\n", ggml_backend_dev_name(device),
                 ggml_backend_dev_description(device));
    const ggml_backend_t backend = ggml_backend_dev_init(device, nullptr);
    const ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
    using SetThreads = void (*)(ggml_backend_t, int);
    const auto set =
        reinterpret_cast<SetThreads>(ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
    if (set) set(backend, static_cast<int>(std::thread::hardware_concurrency()));
    return backend;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind != "cpu" && kind != "vulkan") {
    std::fprintf(stderr, "usage: ggml_peer cpu|vulkan [FOLDER_OF_BACKENDS]\n");
    return 2;
  }
  if (argc > 2) {
    ggml_backend_load_all_from_path(argv[2]);
  } else {
    ggml_backend_load_all();
  }
  const ggml_backend_t backend = open_backend(kind);
  if (!backend) {
    std::fprintf(stderr, "ggml finds no device for %s\n", kind.c_str());
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string name, shape, dtype;
    if (!std::getline(in, name, '\t') || !std::getline(in, shape, '\t') || !(in >> dtype)) continue;
    const ggml_type type = type_of(dtype);
    if (type == GGML_TYPE_COUNT) continue;
    try {
      const double ms = measure(backend, name, shape, type);
      if (ms > 0) std::printf("%s\t%s\t%s\t%.6f\n", name.c_str(), shape.c_str(), dtype.c_str(), ms);
      std::fflush(stdout);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s %s %s: %s\n", name.c_str(), shape.c_str(), dtype.c_str(), e.what());
    }
  }
  ggml_backend_free(backend);
  return 0;
}
