def pytest_configure(config):
    config.addinivalue_line(
        "markers", "slow: kills a process at each of its file events, compiles, or starts several processes"
    )
