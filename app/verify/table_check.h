// Comparing the rows of JSON tables: values, and errors by their kind.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "app/verify/case.h"

namespace vkflux::verify {

/// Everything that isn't a number must be equal; numbers may differ by tolerance * |wanted| (whole numbers
/// not at all). "nan", "inf" and "-inf" in `want` also stand for those numbers, whole numbers beyond 64 bits
/// are texts of digits on both sides, and a whole number of ours may be a boolean there. The note says where
/// the first difference is.
Check compare_values(const std::string& name, const nlohmann::json& got, const nlohmann::json& want,
                     double tolerance);

/// Runs `fn` for a row that has either "result" or "error": {type}. A ValueError or TypeError is our
/// invalid_argument or format, a FileNotFoundError our io.
Check check_row(const std::string& name, const nlohmann::json& row, const std::function<nlohmann::json()>& fn,
                double tolerance = 0);

/// Compares fn(row) with the row's fields of the same names, row by row.
void run_rows(const std::string& name, const nlohmann::json& rows,
              const std::function<nlohmann::json(const nlohmann::json&)>& fn, Report& report,
              double tolerance = 1e-6);

/// A failed check that only says why.
Check failed_check(const std::string& name, const std::string& why);
/// |got - want| relative to max(|want|, floor); equal infinities, and two NaN, differ by 0.
Check number_check(const std::string& name, double got, double want, double tolerance, double floor);

}  // namespace vkflux::verify
