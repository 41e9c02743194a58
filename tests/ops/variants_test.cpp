// Names of ops and forms: what nobody has is refused, with the names there are.
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <thread>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

using Where = VariantOverride::Where;

// Each thread reads the variable once, so every value gets a thread of its own.
void with_variable(const char* value, const std::function<void()>& f) {
  const char* old = std::getenv("VKFLUX_VARIANT");
  const std::optional<std::string> before = old ? std::optional<std::string>(old) : std::nullopt;
  value ? setenv("VKFLUX_VARIANT", value, 1) : unsetenv("VKFLUX_VARIANT");
  std::thread(f).join();
  before ? setenv("VKFLUX_VARIANT", before->c_str(), 1) : unsetenv("VKFLUX_VARIANT");
}

TEST(Variants, TheVariableIsRead) {
  with_variable("matmul:gpu,attention:flash", [] {
    check_forced_variants();
    EXPECT_EQ(forced_variant("matmul"), "gpu");
    EXPECT_EQ(forced_variant("attention"), "flash");
    EXPECT_EQ(forced_variant("softmax"), "");
  });
  with_variable("*:gpu,matmul:simd", [] {
    EXPECT_EQ(forced_variant("softmax"), "gpu");
    EXPECT_EQ(forced_variant("matmul"), "simd");
  });
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    with_variable(unset, [] {
      check_forced_variants();
      EXPECT_EQ(forced_variant("matmul"), "");
    });
  }
}

TEST(Variants, WhatNobodyHasIsRefused) {
  struct Bad {
    const char* value;
    std::vector<std::string> said;
  };
  for (const Bad& b :
       {Bad{"attention:gpu", {"VKFLUX_VARIANT", "'gpu'", "coop, flash, panels, composed"}},
        Bad{"matmul:gpu,attention:Flash", {"'Flash'"}}, Bad{"attn:flash", {"'attn'", "attention", "matmul"}},
        Bad{"matmul", {"OP:FORM"}}, Bad{"gpu", {"OP:FORM"}}, Bad{"matmul:", {"''", "simd, gpu"}},
        Bad{":gpu", {"''", "attention"}}, Bad{"matmul:gpu,", {"OP:FORM"}}, Bad{",", {"OP:FORM"}},
        Bad{" matmul:gpu", {"' matmul'"}}, Bad{"matmul:gpu;conv2d:gpu", {"'gpu;conv2d:gpu'"}},
        Bad{"*:flash", {"'flash'", "simd, gpu"}}}) {
    with_variable(b.value, [&] {
      for (int again = 0; again < 2; ++again)
        expect_error(ErrorCode::invalid_argument, b.said, [] { check_forced_variants(); });
    });
  }
  expect_error(ErrorCode::invalid_argument, {"attention", "'gpu'", "flash"},
               [] { VariantOverride("attention", "gpu"); });
  expect_error(ErrorCode::invalid_argument, {"'attentoin'"}, [] { VariantOverride("attentoin", "flash"); });
}

TEST(Variants, AnOverrideIsFollowedOrFails) {
  const Tensor x = upload(random({5, 7}, 1)), w = upload(random({3, 7}, 2));
  {
    const VariantOverride force("matmul", "panels");
    expect_error(ErrorCode::internal, {"matmul", "'panels'", "'gpu'"}, [&] { op::linear(x, w); });
    {
      const VariantOverride inner("matmul", "gpu");
      EXPECT_NO_THROW(op::linear(x, w));
    }
    EXPECT_THROW(op::linear(x, w), Error);
  }
  const VariantOverride force("matmul", "panels", Where::it_fits);
  EXPECT_NO_THROW(op::linear(x, w));
}

// Each form of a product is the kernel that its name says.
TEST(Variants, FormsOfProductsRunTheirKernels) {
  Device& d = device();
  const Tensor x = upload(random({8, 64}, 1)), w = upload(random({32, 64}, 2)), w16 = op::cast(w, DType::f16);
  std::vector<std::pair<const char*, std::string>> forms = {{"gpu", "matmul:vec4"}, {"matvec", "matvec"}};
  if (d.caps().simd())
    forms.insert(forms.end(), {{"simd", "matmul_simd:nt"}, {"panels", "matmul_simd:panel"}});
  if (d.kernels().available("matmul_coop", "f16")) forms.push_back({"coop", "matmul_coop:f16"});
  for (const auto& [form, kernel] : forms) {
    const VariantOverride force("matmul", form);
    const auto ran = kernels_of(d, [&] { op::linear(x, form == std::string("coop") ? w16 : w); });
    EXPECT_TRUE(std::any_of(ran.begin(), ran.end(), [&, k = kernel](const std::string& n) {
      return n.starts_with(k);
    })) << form;
  }
}

}  // namespace
}  // namespace vkflux::test
