// Loads a TorchScript file without Python and answers what is asked: reload MODEL ASKED ANSWERED [seed]
// ASKED holds a list of calls (method, arguments, keywords), as torch.save writes it; ANSWERED becomes a list of outputs.
#include <fstream>
#include <iostream>
#include <iterator>

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/pickle.h>

static c10::IValue typed(const c10::IValue& value) {  // a list read back does not know that it holds tensors
  if (!value.isList() || value.toListRef().empty()) return value;
  c10::List<at::Tensor> tensors;
  for (const auto& item : value.toListRef()) tensors.push_back(item.toTensor());
  return tensors;
}

int main(int count, char** words) {
  if (count < 4) return 2;
  try {
    c10::InferenceMode no_gradients;
    auto model = torch::jit::load(words[1], at::kCPU);
    std::ifstream asked(words[2], std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(asked)), std::istreambuf_iterator<char>());
    c10::impl::GenericList answers(c10::AnyType::get());
    const auto calls = torch::jit::pickle_load(bytes);
    for (const auto& one : calls.toListRef()) {
      const auto& call = one.toTupleRef().elements();  // method, arguments, keywords
      std::vector<c10::IValue> arguments;
      torch::jit::Kwargs keywords;
      for (const auto& argument : call[1].toTupleRef().elements()) arguments.push_back(typed(argument));
      for (const auto& word : call[2].toGenericDict()) keywords[word.key().toStringRef()] = word.value();
      at::Generator(at::globalContext().defaultGenerator(at::kCPU)).set_current_seed(0);
      answers.push_back(model.get_method(call[0].toStringRef())(arguments, keywords));
    }
    const auto written = torch::jit::pickle_save(answers);
    std::ofstream file(words[3], std::ios::binary);
    if (!file.write(written.data(), static_cast<std::streamsize>(written.size())).flush()) {
      std::cerr << "cannot write " << words[3] << std::endl;
      return 1;
    }
  } catch (const c10::Error& error) {  // the stack below it would hide what is wrong
    std::cerr << error.what_without_backtrace() << std::endl;
    return 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
