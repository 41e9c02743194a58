// Lists of numbers as they are written on a command line or in a workflow.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/io/json.h"

namespace vkflux {

/// Only digits: an integer N, which stands for 1, 2, ..., N. Beginning with '[': a JSON array of numbers (or
/// of texts that are numbers). Else numbers separated by commas and white space, so "3," and "3.0" are one 3.
/// Nothing but white space: none. Error invalid_argument or format naming `argument`.
std::vector<double> number_list(std::string_view text, const std::string& argument);

/// From a JSON value: null is empty, an array gives its numbers, a text is read as above; Error
/// invalid_argument for anything else.
std::vector<double> json_number_list(const io::Json& value, const std::string& argument);

}  // namespace vkflux
