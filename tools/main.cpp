int main() {
  return 64;
}
