def pytest_configure(config):
    config.addinivalue_line("markers", "slow: ten million draws, or generated code")
