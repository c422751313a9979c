"""The README's programs do what it says."""
import os
import re
import unittest

README = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "README.md")


class Readme(unittest.TestCase):
    def test_its_programs(self):
        with open(README) as f:
            programs = re.findall(r"^```python\n(.*?)^```$", f.read(), re.M | re.S)
        self.assertEqual(len(programs), 2)
        names = {"__name__": "readme"}
        for program in programs:
            exec(compile(program, README, "exec"), names)
