module libgptq/gptq

go 1.19
