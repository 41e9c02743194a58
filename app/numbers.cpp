#include "app/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {
namespace {

[[noreturn]] void refuse(std::string_view text, const std::string& what, const std::string& expected) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{}: '{}' is given, {} is expected", what, io::shown(text), expected));
}

template <class T>
std::string described(const char* kind, Range<T> range) {
  const bool open = range.most == std::numeric_limits<T>::max();
  return open && range.least == std::numeric_limits<T>::lowest() ? kind
         : open ? fmt::format("{} of at least {}", kind, range.least)
                : fmt::format("{} from {} to {}", kind, range.least, range.most);
}

template <class T>
T parsed(std::string_view text, Range<T> range, const std::string& what, const char* kind) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end || !(value >= range.least && value <= range.most))
    refuse(text, what, described(kind, range));
  return value;
}

}  // namespace

int64_t whole_number(std::string_view text, Range<int64_t> range, const std::string& what) {
  return parsed(text, range, what, "a whole number");
}

uint64_t whole_number(std::string_view text, Range<uint64_t> range, const std::string& what) {
  return parsed(text, range, what, "a whole number");
}

double real_number(std::string_view text, Range<double> range, const std::string& what) {
  const double value = parsed(text, range, what, "a number");
  if (!std::isfinite(value)) refuse(text, what, described("a number", range));
  return value;
}

std::pair<int64_t, int64_t> size_in_pixels(std::string_view text, const std::string& what) {
  const size_t x = text.find('x');
  if (x == std::string_view::npos) refuse(text, what, "WIDTHxHEIGHT, 64x64 say,");
  const auto side = [&](std::string_view part, const char* name) {
    return whole_number(part, Range<int64_t>{1, kMaxPictureSide},
                        fmt::format("{} {}: {}", what, io::shown(text), name));
  };
  return {side(text.substr(0, x), "width"), side(text.substr(x + 1), "height")};
}

}  // namespace vkflux
