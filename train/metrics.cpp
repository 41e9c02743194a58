#include "train/metrics.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "model/io/file.h"
#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux {
namespace {

void append(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary | std::ios::app);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.flush();
  if (!out) throw Error(ErrorCode::io, fmt::format("can't append to {}", path));
}

class Careful : public MetricSink {
 public:
  explicit Careful(std::string path) : path_(std::move(path)) {}
  void write(int64_t step, const Metrics& metrics) final {
    if (failed_) return;
    try {
      append(path_, line(step, metrics));
    } catch (const Error& e) {
      failed_ = true;
      spdlog::warn("metrics are no longer written: {}", e.what());
    }
  }

 protected:
  virtual std::string line(int64_t step, const Metrics& metrics) = 0;
  std::string path_;

 private:
  bool failed_ = false;
};

constexpr size_t kMaxLine = 1 << 16;

class Jsonl : public Careful {
 public:
  Jsonl(const std::string& path, int64_t resume_step) : Careful(path) {
    if (!io::is_there(path)) return;
    std::istringstream in(io::read_file(path));
    std::string kept;
    for (std::string text; std::getline(in, text);) {
      if (text.size() > kMaxLine) continue;  // none of ours
      const auto row = nlohmann::json::parse(text, nullptr, false);
      const auto step = row.is_object() ? row.find("step") : row.end();
      if (step == row.end() || !step->is_number_integer()) continue;
      if (step->get<int64_t>() >= 0 && step->get<int64_t>() <= resume_step) kept += text + '\n';
    }
    io::atomic_write(path, kept);
  }

 private:
  std::string line(int64_t step, const Metrics& metrics) override {
    nlohmann::ordered_json row;
    row["step"] = step;
    for (const auto& [name, value] : metrics) {
      if (std::isfinite(value)) {
        row[name] = value;
      } else {
        row[name] = nullptr;
      }
    }
    return io::json_text(row) + '\n';
  }
};

// The few protobuf encodings that a scalar event needs.
void put_varint(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  out += static_cast<char>(v);
}
template <class T>
void put_raw(std::string& out, T v) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &v, sizeof(T));
  out.append(bytes, sizeof(T));
}
void put_bytes(std::string& out, int field, const std::string& bytes) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string record(const std::string& event) {
  const auto masked = [](std::string_view s) {
    const uint32_t c = crc32c(s);
    return std::rotr(c, 15) + 0xa282ead8u;
  };
  std::string out, length;
  put_raw(length, static_cast<uint64_t>(event.size()));
  out += length;
  put_raw(out, masked(length));
  out += event;
  put_raw(out, masked(event));
  return out;
}

class TensorBoard : public Careful {
 public:
  TensorBoard(const std::string& directory, int64_t resume_step)
      : Careful(fmt::format("{}/events.out.tfevents.{:010}.vkflux", directory, resume_step)) {
    std::string version;
    put_time(version);
    put_bytes(version, 3, "brain.Event:2");
    try {
      std::filesystem::create_directories(directory);
      io::atomic_write(path_, record(version));
    } catch (const std::exception& e) {
      spdlog::warn("no TensorBoard events: {}", e.what());
    }
  }

 private:
  static void put_time(std::string& out) {
    const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
    put_varint(out, 1 << 3 | 1);
    put_raw(out, now.count());
  }
  std::string line(int64_t step, const Metrics& metrics) override {
    std::string summary;
    for (const auto& [name, value] : metrics) {
      std::string scalar;
      put_bytes(scalar, 1, name);
      put_varint(scalar, 2 << 3 | 5);
      put_raw(scalar, static_cast<float>(value));
      put_bytes(summary, 1, scalar);
    }
    std::string event;
    put_time(event);
    put_varint(event, 2 << 3 | 0);
    put_varint(event, static_cast<uint64_t>(step));
    put_bytes(event, 5, summary);
    return record(event);
  }
};

}  // namespace

uint32_t crc32c(std::string_view data) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t c = 0xffffffffu;
  for (unsigned char b : data) c = table[(c ^ b) & 0xff] ^ c >> 8;
  return ~c;
}

std::unique_ptr<MetricSink> jsonl_sink(const std::string& path, int64_t resume_step) {
  return std::make_unique<Jsonl>(path, resume_step);
}

std::unique_ptr<MetricSink> tensorboard_sink(const std::string& directory, int64_t resume_step) {
  return std::make_unique<TensorBoard>(directory, resume_step);
}

}  // namespace vkflux
