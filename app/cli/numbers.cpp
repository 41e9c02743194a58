#include "app/cli/numbers.h"

#include <fmt/format.h>

#include <utility>

#include "vk/error.h"

namespace vkflux::cli {
namespace {

template <class Parse>
std::string fault(const Parse& parse, const std::string& text) {
  try {
    parse(text);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

std::string without_zeros(std::string text) {
  const size_t sign = text.starts_with('-') ? 1 : 0;
  while (text.size() > sign + 1 && text[sign] == '0') text.erase(sign, 1);
  return text;
}

/// `parse` throws at what can't be.
template <class Parse>
CLI::Validator number(const std::string& description, Parse parse) {
  const auto check = [parse](std::string& text) {
    std::string message = fault(parse, text);
    if (message.empty()) text = without_zeros(text);
    return message;
  };
  return {check, description, kNumberCheck};
}

}  // namespace

CLI::Validator whole(int64_t least, int64_t most) {
  const Range<int64_t> range{least, most};
  return number(fmt::format("{} to {}", least, most),
                [range](const std::string& text) { whole_number(text, range, "number"); });
}

CLI::Validator any_seed() {
  return number("0 to 2^64-1",
                [](const std::string& text) { whole_number(text, Range<uint64_t>{}, "number"); });
}

CLI::Validator real(double least, double most) {
  const Range<double> range{least, most};
  return number(fmt::format("{} to {}", least, most),
                [range](const std::string& text) { real_number(text, range, "number"); });
}

CLI::Validator parsed_by(std::function<void(const std::string&)> parse, const std::string& form) {
  return {[parse = std::move(parse)](std::string& text) { return fault(parse, text); }, form};
}

CLI::Validator picture_size() {
  return parsed_by([](const std::string& text) { size_in_pixels(text, "size"); }, "WIDTHxHEIGHT");
}

}  // namespace vkflux::cli
